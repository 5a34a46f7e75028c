"""Which video files a data set holds, and what its folders and lists say of each. Nothing is decoded here.

The layouts, in the order in which `auto` tries them:

    ucf101    trainlist0N.txt and testlist0N.txt, class folders
    hmdb51    <class>_test_split<N>.txt, class folders
    kinetics  CSV lists with the columns youtube_id, time_start, time_end, split and mostly label; the videos, anywhere
              below the root, are named <youtube_id>_<start>_<end> or plainly <youtube_id>. The test list comes without
              labels: what stands for it where models are compared is the validation list, which is `val` here.
    csv       lists of paths with, if known, labels and splits (`lists`), in the root; also one folder below, if the
              name of a list tells its split, as train.csv and val.csv do. Other columns become attributes.
    classes   one folder per class, within or around one folder per split if there are such
    folder    videos without labels, at any depth, perhaps in one folder per split

Splits are `train`, `val` and `test`; `folders` has the words by which they are known. What lists do not tell at all,
labels or splits, is taken from the folders. Names in lists count without regard to the suffix, so that a transcoded
copy of a data set keeps its lists, and where only one file can be meant also without regard to case and to folders in
front. Whatever is guessed, or found and not used, is told in `Listing.notes`.

A folder is searched as a whole, and videos that its lists do not name are kept with split None. A root that is itself
a list stands for exactly the videos it names.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.layouts import lists
from cacl.loaders.catalog.layouts.entries import Entry, Names, hold_out, join, once
from cacl.loaders.catalog.layouts.folders import SPLITS, read_classes, read_folders, split_in
from cacl.loaders.catalog.layouts.lists import KINETICS_COLUMNS, SUFFIXES, Table, Unread

UCF101_LISTS = r"(train|test)list(?P<split>\d+)\.txt"
HMDB51_LISTS = r".+_test_split(?P<split>\d+)\.txt"

JUNK = ("lost+found", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
"""Folders that systems make for themselves. Like what is hidden, they are not looked into."""
LIST_SUFFIXES = ("", "txt", "csv", "tsv", "lst", "list", "json", "jsonl", "yaml", "yml", "xml", *lists.SPREADSHEETS)
"""Of files that may be lists, or be taken for some: not all are read."""
NAMED = 3
"""Lists that are named though they are not used; more are counted."""
NO_LISTS = ("readme", "license", "licence", "changelog", "citation", "notice")
"""Stems of text files that may name a video without being a list."""


class Listing(NamedTuple):
    root: Path
    """Absolute; the folder of the list where data.root is one."""
    layout: str
    """The layout that was found, never `auto`."""
    entries: tuple[Entry, ...]
    """Sorted by path."""
    missing: tuple[str, ...]
    """Listed names for which there is no file, sorted."""
    notes: tuple[str, ...] = ()
    """What was guessed, and what was found and not used; one line each."""


class _Found(NamedTuple):
    root: Path
    videos: Sequence[str]
    texts: Sequence[str]
    """Text files in the root or one folder below, but for those that go with one video."""
    tables: Mapping[str, Table | Unread]
    """Those of them that list videos, without the official lists of UCF101 and HMDB51."""
    notes: Sequence[str]
    """On folders that cannot be read."""
    is_list: bool = False
    """Whether the root is a list, and the videos are just where those may be that it names."""


class _Read(NamedTuple):
    entries: Sequence[Entry]
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
    used: Collection[str] = ()
    """The lists among `_Found.tables` that this comes from."""


def find(config: DataConfig) -> Listing:
    """Finds the video files of `config.root` and reads labels and splits from its lists or folders.

    Where labels but no splits are known, `config.test_share` holds videos out, see `hold_out`.
    Raises DataError if there is no such root or no video in it, if lists are absent, damaged or contradictory, if one
    file is reached by paths that contradict each other, or if `auto` cannot tell splits from classes.
    """
    if not config.root:
        raise DataError("data.root is not set: name a folder of videos, or a list of them")
    root = Path(os.path.abspath(os.path.expanduser(config.root)))
    if not os.path.exists(root):
        raise DataError(f"data.root = {root}: does not exist, or may not be read")

    found = _search_folder(root) if root.is_dir() else _search_list(root, config.layout)
    layout = _recognise(found) if config.layout == "auto" else config.layout
    read = _READERS[layout](found, config.fold)
    entries, links = once(found.root, read.entries)
    notes = (*read.notes, *links, *_unused(found, read.used, layout), *found.notes)
    if not entries:
        looked_for = " ".join(f".{suffix}" for suffix in SUFFIXES)
        listed = (
            f"; none of the {len(read.missing)} listed ones is there, such as {read.missing[0]}" if read.missing else ""
        )
        raise DataError(
            f"data.root = {root}: holds no video (looked for {looked_for}){listed}{'; '.join(('', *found.notes))}"
        )

    if layout == "classes" and not any(entry.label for entry in entries):
        raise DataError(f"data.root = {root}: layout classes, but no video lies in a folder of its class")
    if config.test_share and not any(entry.split for entry in entries):
        if not any(entry.label for entry in entries):
            raise DataError(
                f"data.test_share = {config.test_share} holds out videos of each class, but layout {layout} tells no "
                f"classes in {root}"
            )
        entries = hold_out(entries, config.test_share)
    entries = sorted(entries, key=lambda entry: entry.path)
    return Listing(found.root, layout, tuple(entries), tuple(read.missing), notes)


# --- What is on disk ---


def _search_folder(root: Path) -> _Found:
    files, notes = _files(root)
    videos = [path for path in files if _suffix(path) in SUFFIXES]
    stems = {os.path.splitext(path)[0] for path in videos}
    near = [path for path in files if _suffix(path) in LIST_SUFFIXES and path.count("/") <= 1]
    texts = [path for path in near if os.path.splitext(path)[0] not in stems]
    names, tables = Names(videos), {}
    for path in texts:
        stem, _ = os.path.splitext(path.rpartition("/")[2])
        if not (_named([path], UCF101_LISTS) or _named([path], HMDB51_LISTS) or stem.lower() in NO_LISTS):
            table = lists.read(root / path, lambda name: bool(names.like(name)) or (root / name).is_file())
            if table is not None:
                tables[path] = table
    return _Found(root, videos, texts, tables, notes)


def _search_list(file: Path, layout: str) -> _Found:
    if _suffix(file.name) not in LIST_SUFFIXES or layout not in ("auto", "csv", "kinetics"):
        raise DataError(f"data.root = {file}: is a file; layout {layout} takes a folder (auto and csv also a list)")
    table = lists.read(file, lambda name: (file.parent / name).is_file())
    if isinstance(table, Unread):
        raise DataError(f"data.root = {table.message}")
    if table is None:
        raise DataError(f"data.root = {file}: is no list of videos; it needs a column `path`, or a video on each line")
    found = _Found(file.parent, [], [file.name], {file.name: table}, [], is_list=True)
    # A list of Kinetics says nothing of folders, and another one may not spell names as the files do.
    names = [cells["path"] for _, cells in table.records() if "path" in cells]
    there = {name for name in names if (file.parent / name).is_file()}
    if there and all(name in there or os.path.isabs(name) for name in names):
        return found
    files, notes = _files(file.parent)
    return found._replace(videos=[path for path in files if _suffix(path) in SUFFIXES], notes=notes)


def _files(root: Path) -> tuple[list[str], list[str]]:
    """Paths of all files that are not hidden, sorted, and notes on folders that cannot be read."""
    notes: list[str] = []
    return sorted(_walk(root, "", frozenset(), notes)), notes


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]], notes: list[str]) -> Iterator[str]:
    """Follows links to folders unless they lead to a folder further up."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        if not prefix:
            raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
        notes.append(f"{prefix} cannot be read ({error.strerror}): what is in it is left out")
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in JUNK:
            continue
        # DirEntry.is_dir costs no system call, but raises on a link that leads to itself.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {here}, notes)
        else:
            yield prefix + entry.name


def _unused(found: _Found, used: Collection[str], layout: str) -> Iterator[str]:
    rest = sorted(found.tables.keys() - set(used))
    instead = f"layout {layout}" + (f" takes {', '.join(used)}" if used else "")
    for path in rest[:NAMED]:
        table = found.tables[path]
        what = table.message if isinstance(table, Unread) else f"{table.file}: lists videos"
        yield f"{what}; it is not used ({instead})"
    if len(rest) > NAMED:
        yield f"{len(rest) - NAMED} more lists are not used, such as {rest[-1]}"


# --- The layouts ---


def _recognise(found: _Found) -> str:
    official = {
        "ucf101": _named(found.texts, UCF101_LISTS),
        "hmdb51": _named(found.texts, HMDB51_LISTS),
        "kinetics": [path for path, table in found.tables.items() if _is_kinetics(table)],
    }
    names = [name for name, listed in official.items() if listed]
    if len(names) > 1:
        which = " and of ".join(f"{name} ({official[name][0]})" for name in names)
        raise DataError(f"data.root = {found.root}: holds lists of {which}; name one's folder, or set data.layout")
    if names:
        return names[0]
    if _path_lists(found):
        return "csv"
    folders = read_folders(found.videos)
    if folders.doubt:
        raise DataError(
            f"data.root = {found.root}: {folders.doubt}. Name all of them as splits (train, val, test) or take the "
            "others away; or, if all are classes, set data.layout = classes"
        )
    return "classes" if folders.tell_classes else "folder"


def _ucf101(found: _Found, split: int) -> _Read:
    classes = set()
    rows = defaultdict(list)
    for part in ("train", "test"):
        for path in _lists_of_split(found, UCF101_LISTS, split, f"{part}list{split:02d}.txt"):
            for where, line in lists.lines(found.root / path):
                match = re.fullmatch(r"(?P<name>(?P<label>[^/]+)/[^/]+?)(\s+\d+)?", line)
                if not match:
                    raise DataError(
                        f"{where}: {line!r} is not <class>/<video>, perhaps with the class number behind it"
                    )
                name, label = match["name"], match["label"]
                classes.add(label)
                rows[_class_and_stem(name)].append((where, Entry(name, label, part)))
    return _Read(*join(found.videos, rows, _class_and_stem, classes))


def _hmdb51(found: _Found, split: int) -> _Read:
    parts = {"0": None, "1": "train", "2": "test"}
    ending = f"_test_split{split}.txt"
    classes = set()
    rows = defaultdict(list)
    for path in _lists_of_split(found, HMDB51_LISTS, split, ending):
        label = path.rpartition("/")[2].removesuffix(ending)
        classes.add(label)
        for where, line in lists.lines(found.root / path):
            match = re.fullmatch(r"(?P<file>.+?)\s+(?P<part>[012])", line)
            if not match:
                raise DataError(f"{where}: {line!r} does not end in 0 (unused), 1 (train) or 2 (test)")
            name = f"{label}/{match['file']}"
            rows[_class_and_stem(name)].append((where, Entry(name, label, parts[match["part"]])))
    return _Read(*join(found.videos, rows, _class_and_stem, classes))


def _kinetics(found: _Found, split: int) -> _Read:
    used = {path: table for path, table in found.tables.items() if isinstance(table, Table) and _is_kinetics(table)}
    if not used:
        columns = ", ".join(["label", *sorted(KINETICS_COLUMNS)])
        raise DataError(f"{found.root}: layout kinetics needs CSV lists with {columns} here or one folder below")
    rows = defaultdict(list)
    labelled: set[str | None] = set()
    for table in used.values():
        for where, cells in table.records():
            try:
                start, end = int(float(cells["time_start"])), int(float(cells["time_end"]))
            except ValueError:
                raise DataError(f"{where}: {cells['time_start']!r} to {cells['time_end']!r} are not seconds") from None
            clip = f"{cells['youtube_id']}_{start:06d}_{end:06d}"
            row = Entry(f"{clip}.mp4", cells.get("label") or None, _split(cells["split"], where))
            rows[clip].append((where, row))
            rows[cells["youtube_id"]].append((where, row))
            if row.label:
                labelled.add(row.split)
    read = _Read(*join(found.videos, rows, lambda path: _class_and_stem(path).rpartition("/")[2]))
    notes = list(read.notes)
    if "val" in labelled and "test" not in labelled:
        notes.append(
            "Kinetics gives no labels for its test videos: its validation list stands for them where results are "
            "compared (cacl eval retrieval --queries val)"
        )
    return read._replace(notes=notes, used=list(used))


def _csv(found: _Found, split: int) -> _Read:
    chosen = _chosen_lists(found)
    records = [(path, where, cells) for path, table in chosen.items() for where, cells in table.records()]
    unlabelled = {cells.get("label", "") for _, _, cells in records} <= {"", "-1"}
    videos, rows = set(found.videos), defaultdict(list)
    bases = str(found.root), os.path.realpath(found.root)
    for path, where, cells in records:
        name = cells.pop("path")
        if not name:
            raise DataError(f"{where}: the path is empty")
        label = cells.pop("label", "")
        part = _split(cells.pop("split"), where) if "split" in cells else split_in(path)
        location, beside = (_relative(os.path.join(folder, name), bases) for folder in ("", os.path.dirname(path)))
        if beside in videos and location not in videos:
            location = beside
        rows[location].append((where, Entry(name, None if unlabelled else label or None, part, cells)))
    # A list may also name files that no search finds: outside the root, hidden, or with another suffix.
    elsewhere = [path for path in rows.keys() - videos if (found.root / path).is_file()]
    read = _Read(*join([*found.videos, *elsewhere], rows, lambda path: path, listed_only=found.is_list))
    notes = [*_guesses(chosen), *read.notes]
    splits = any(entry.split for entry in read.entries)
    without = [entry.path for entry in read.entries if not entry.split and entry.path in rows]
    if splits and without:
        count, first = len(without), without[0]
        notes.append(f"listed videos whose split no list tells: {count}, such as {first}; they belong to none")
    tell_splits = splits or any(_tells_splits(path, table) for path, table in chosen.items())
    return _completed(read._replace(used=list(chosen), notes=notes), labels=not unlabelled, splits=tell_splits)


def _classes(found: _Found, split: int) -> _Read:
    folders = read_folders(found.videos)
    notes = [*folders.notes, *([f"{folders.doubt}; all are taken for classes"] if folders.doubt else [])]
    if not any(folders.labels.values()):
        folders = read_classes(found.videos)
        notes = ["folders with names of splits are taken for classes, since none lie below or around them"]
    return _Read([Entry(path, folders.labels[path], folders.splits[path]) for path in found.videos], notes=notes)


def _folder(found: _Found, split: int) -> _Read:
    folders = read_folders(found.videos)
    notes = [*folders.notes, *([f"{folders.doubt}; no split is taken from them"] if folders.doubt else [])]
    return _Read([Entry(path, None, folders.splits[path]) for path in found.videos], notes=notes)


_READERS: Mapping[str, Callable[[_Found, int], _Read]] = {
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "kinetics": _kinetics,
    "csv": _csv,
    "classes": _classes,
    "folder": _folder,
}


def _completed(read: _Read, *, labels: bool, splits: bool) -> _Read:
    """With labels or splits from the folders, where the lists tell none at all."""
    entries, notes = read.entries, list(read.notes)
    within = [entry.path for entry in entries if not entry.path.startswith(("/", "../"))]
    folders = read_folders(within)
    if not labels and folders.tell_classes:
        entries = [entry._replace(label=folders.labels.get(entry.path)) for entry in entries]
        notes.append("lists tell no labels: the folders of the videos do")
    if not splits and any(folders.splits.values()):
        entries = [entry._replace(split=folders.splits.get(entry.path)) for entry in entries]
        notes += ["lists tell no splits: the folders of the videos do", *folders.notes]
    elif not splits and folders.doubt:
        notes.append(f"lists tell no splits, and {folders.doubt}; no split is taken from them")
    return read._replace(entries=entries, notes=notes)


def _class_and_stem(path: str) -> str:
    folder, _, file = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{os.path.splitext(file)[0]}"


def _relative(path: str, bases: Sequence[str]) -> str:
    """The form in which a search of the root would give this path, if it lies in there. bases: forms of the root."""
    normal = os.path.normpath(path)
    for base in bases:
        normal = normal.removeprefix(os.path.join(base, ""))
    return normal


# --- Choosing lists ---


def _named(texts: Sequence[str], pattern: str) -> list[str]:
    return [path for path in texts if re.fullmatch(pattern, path.rpartition("/")[2])]


def _is_kinetics(table: Table | Unread) -> bool:
    return isinstance(table, Table) and set(table.columns) >= KINETICS_COLUMNS


def _lists_of_split(found: _Found, pattern: str, split: int, ending: str) -> list[str]:
    listed = _named(found.texts, pattern)
    wanted = [path for path in listed if path.endswith(ending)]
    if not wanted:
        there = sorted({match["split"] for path in listed if (match := re.search(pattern, path))})
        raise DataError(
            f"data.fold = {split}: no list named {ending} in {found.root} or one folder below it; there are lists of "
            f"split {', '.join(there) or 'none'}"
        )
    return wanted


def _path_lists(found: _Found) -> dict[str, Table | Unread]:
    """The lists that make the layout csv: in the root, or elsewhere if they tell splits or no other list is there."""
    given = {
        path: table
        for path, table in found.tables.items()
        if (table.damaged if isinstance(table, Unread) else "path" in table.columns)
    }
    return {path: table for path, table in given.items() if "/" not in path or _tells_splits(path, table)} or (
        given if len(given) == 1 else {}
    )


def _chosen_lists(found: _Found) -> dict[str, Table]:
    """One list, or several of which some tell splits: others beside them may tell labels.

    Raises DataError if they are damaged, or if it is not clear which to take.
    """
    given: dict[str, Table] = {}
    for path, table in _path_lists(found).items():
        if isinstance(table, Unread):
            raise DataError(table.message)
        given[path] = table
    if len(given) != 1 and not any(_tells_splits(path, table) for path, table in given.items()):
        raise DataError(
            f"data.root = {found.root}: layout csv needs one list with a column `path` in this folder, or lists whose "
            f"names tell splits, and there are {len(given)} ({', '.join(given) or 'none'}); name one as data.root, or "
            "set data.layout"
        )
    return given


def _guesses(chosen: Mapping[str, Table]) -> Iterator[str]:
    """What was taken for what in these lists, those alike together."""
    alike: dict[str, list[str]] = defaultdict(list)
    for path, table in chosen.items():
        alike[table.taken].append(path)
    for what, paths in alike.items():
        if what:
            yield f"{', '.join(paths)}: {what}"
    by_name = {path: split_in(path) for path, table in chosen.items() if "split" not in table.columns}
    if told := ", ".join(f"{split} by {path}" for path, split in by_name.items() if split):
        yield f"splits told by the names of lists: {told}"


def _tells_splits(path: str, table: Table | Unread) -> bool:
    return split_in(path) is not None or (isinstance(table, Table) and "split" in table.columns)


# --- Words ---


def _split(value: str, where: str) -> str | None:
    if value and value.lower() not in SPLITS:
        raise DataError(f"{where}: split {value!r} is none of {', '.join(SPLITS)}")
    return SPLITS[value.lower()] if value else None


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower()
