"""Which video files a data set holds, and what its folders and lists say of each. Nothing is decoded here.

The layouts, in the order in which `auto` tries them:

    ucf101    trainlist0N.txt and testlist0N.txt, class folders
    hmdb51    <class>_test_split<N>.txt, class folders
    kinetics  CSV lists with the columns youtube_id, time_start, time_end, split and mostly label; the videos, anywhere
              below the root, are named <youtube_id>_<start>_<end> or plainly <youtube_id>. The validation list counts
              as `test`. The test list comes without labels: it counts as `test` only where no validation list is.
    csv       one CSV list in the root with the column path and, if known, label and split; others become attributes
    classes   one folder per class, or one per split (train, test, val, validate, validation) with the classes in it
    folder    videos without labels, at any depth

The official lists lie in the root or one folder below it. They name videos without regard to the suffix, so that a
transcoded copy of a data set keeps its lists; all videos that answer to a listed name get its label and split.

A folder is searched as a whole, and videos that its lists do not name are kept with split None. A root that is itself
a CSV file with a `path` column stands for exactly the videos it names.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cacl.config import DataConfig
from cacl.errors import DataError

SUFFIXES = ("avi", "mp4", "mov", "mkv", "webm", "mpg", "mpeg", "m4v", "wmv", "flv", "3gp", "ts", "mts", "ogv")
"""How video files are known, in any case."""

SPLITS = {"train": "train", "test": "test", "val": "test", "validate": "test", "validation": "test"}

UCF101_LISTS = r"(train|test)list(?P<split>\d+)\.txt"
HMDB51_LISTS = r".+_test_split(?P<split>\d+)\.txt"
KINETICS_COLUMNS = {"youtube_id", "time_start", "time_end", "split"}


class Entry(NamedTuple):
    """One video file and what is known of it."""

    path: str
    """Relative to the root, with forward slashes; absolute where a CSV list names a video outside the root that way."""
    label: str | None = None
    split: str | None = None
    attributes: Mapping[str, str] = {}


class Listing(NamedTuple):
    root: Path
    """Absolute; the folder of the CSV file where data.root is one."""
    layout: str
    """The layout that was found, never `auto`."""
    entries: tuple[Entry, ...]
    """Sorted by path."""
    missing: tuple[str, ...]
    """Listed names for which there is no file, sorted."""


class _Found(NamedTuple):
    root: Path
    videos: Sequence[str]
    lists: Sequence[str]
    """Text and CSV files in the root or one folder below."""


_Rows: TypeAlias = Mapping[str, Sequence[tuple[str, Entry]]]
"""What the lists say, by a key that tells videos apart: list and line (for messages), and an entry that has the listed
name for its path."""
_Read: TypeAlias = tuple[list[Entry], list[str]]
"""The entries, and the listed names that are not there."""


def find(config: DataConfig) -> Listing:
    """Finds the video files of `config.root` and reads labels and splits from its lists or folders.

    Where labels but no splits are known, `config.test_share` holds videos out, see `hold_out`.
    Raises DataError if there is no such root or no video in it, or if lists are absent, damaged or contradictory.
    """
    if not config.root:
        raise DataError("data.root is not set: name a folder of videos, or a CSV file that lists them")
    root = Path(os.path.abspath(os.path.expanduser(config.root)))
    if not os.path.exists(root):
        raise DataError(f"data.root = {root}: does not exist, or may not be read")

    found = _search_folder(root) if root.is_dir() else _search_list(root, config.layout)
    layout = _recognise(found) if config.layout == "auto" else config.layout
    entries, missing = _READERS[layout](found, config.split)
    if not entries:
        looked_for = " ".join(f".{suffix}" for suffix in SUFFIXES)
        listed = f"; none of the {len(missing)} listed ones is there, such as {missing[0]}" if missing else ""
        raise DataError(f"data.root = {root}: holds no video (looked for {looked_for}){listed}")

    if layout == "classes" and not any(entry.label for entry in entries):
        raise DataError(f"data.root = {root}: layout classes, but no video lies in a folder of its class")
    if config.test_share and not any(entry.split for entry in entries):
        if not any(entry.label for entry in entries):
            raise DataError(
                f"data.test_share = {config.test_share} holds out videos of each class, but layout {layout} tells no "
                f"classes in {root}"
            )
        entries = hold_out(entries, config.test_share)
    return Listing(found.root, layout, tuple(sorted(entries, key=lambda entry: entry.path)), tuple(missing))


def hold_out(entries: Sequence[Entry], share: float) -> list[Entry]:
    """Makes about this share of each class `test`, the other labelled videos `train`; unlabelled ones stay as they are.

    A video is test when the hash of its path, read as a number in [0, 1), is below the share. So its side depends on
    nothing but its path and the share: adding, removing or damaging other files does not move it, and a larger share
    only adds test videos. The price: the share holds on average, not exactly. One exception keeps small classes usable:
    of two or more videos, the one with the lowest hash is always test and, unless the share is 1, the one with the
    highest always train. Those two may move when the class grows.
    """
    classes: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for entry in entries:
        if entry.label is not None:
            classes[entry.label].append((_draw(entry.path), entry.path))
    test: set[str] = set()
    for members in classes.values():
        members.sort()
        count = bisect_left(members, (share, ""))
        if len(members) > 1:
            count = max(count, 1)
        if share < 1:
            count = min(count, len(members) - 1)
        test.update(path for _, path in members[:count])
    return [e._replace(split="test" if e.path in test else "train") if e.label is not None else e for e in entries]


def _draw(path: str) -> float:
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:6], "big") / 2**48


# --- What is on disk ---


def _search_folder(root: Path) -> _Found:
    files = sorted(_walk(root, "", frozenset()))
    return _Found(
        root,
        videos=[path for path in files if _suffix(path) in SUFFIXES],
        lists=[path for path in files if _suffix(path) in ("txt", "csv") and path.count("/") <= 1],
    )


def _search_list(file: Path, layout: str) -> _Found:
    if _suffix(file.name) != "csv" or layout not in ("auto", "csv", "kinetics"):
        raise DataError(f"data.root = {file}: is a file; layout {layout} takes a folder (auto and csv also a CSV list)")
    found = _Found(file.parent, videos=[], lists=[file.name])
    if _with_columns(found, KINETICS_COLUMNS):  # such a list says nothing of folders, so its videos are searched for
        return found._replace(videos=_search_folder(file.parent).videos)
    if not _path_lists(found):
        raise DataError(f"data.root = {file}: has no column `path`; its columns are {', '.join(_columns(file))}")
    return found


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Paths of all files that are not hidden, following links to folders unless they lead to a folder further up."""
    try:
        status = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "lost+found":
            continue
        # DirEntry.is_dir costs no system call, but raises on a link that leads to itself.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {here})
        else:
            yield prefix + entry.name


# --- The layouts ---


def _recognise(found: _Found) -> str:
    official = {
        "ucf101": _named(found, UCF101_LISTS),
        "hmdb51": _named(found, HMDB51_LISTS),
        "kinetics": _with_columns(found, KINETICS_COLUMNS),
    }
    names = [name for name, lists in official.items() if lists]
    if len(names) > 1:
        which = " and of ".join(f"{name} ({official[name][0]})" for name in names)
        raise DataError(f"data.root = {found.root}: holds lists of {which}; name one's folder, or set data.layout")
    if names:
        return names[0]
    if _path_lists(found):
        return "csv"
    labels = {entry.label for entry in _classes(found, 0)[0]}
    return "classes" if len(labels) > 1 and None not in labels else "folder"


def _ucf101(found: _Found, split: int) -> _Read:
    classes = set()
    rows = defaultdict(list)
    for part in ("train", "test"):
        for path in _lists_of_split(found, UCF101_LISTS, split, f"{part}list{split:02d}.txt"):
            for where, line in _lines(found.root / path):
                match = re.fullmatch(r"(?P<name>(?P<label>[^/]+)/[^/]+?)(\s+\d+)?", line)
                if not match:
                    raise DataError(
                        f"{where}: {line!r} is not <class>/<video>, perhaps with the class number behind it"
                    )
                name, label = match["name"], match["label"]
                classes.add(label)
                rows[_class_and_stem(name)].append((where, Entry(name, label, part)))
    return _join(found.videos, rows, _class_and_stem, classes)


def _hmdb51(found: _Found, split: int) -> _Read:
    parts = {"0": None, "1": "train", "2": "test"}
    ending = f"_test_split{split}.txt"
    classes = set()
    rows = defaultdict(list)
    for path in _lists_of_split(found, HMDB51_LISTS, split, ending):
        label = path.rpartition("/")[2].removesuffix(ending)
        classes.add(label)
        for where, line in _lines(found.root / path):
            match = re.fullmatch(r"(?P<file>.+?)\s+(?P<part>[012])", line)
            if not match:
                raise DataError(f"{where}: {line!r} does not end in 0 (unused), 1 (train) or 2 (test)")
            name = f"{label}/{match['file']}"
            rows[_class_and_stem(name)].append((where, Entry(name, label, parts[match["part"]])))
    return _join(found.videos, rows, _class_and_stem, classes)


def _kinetics(found: _Found, split: int) -> _Read:
    table = [row for path in _with_columns(found, KINETICS_COLUMNS) for row in _table(found.root / path)]
    if not table:
        columns = ", ".join(["label", *sorted(KINETICS_COLUMNS)])
        raise DataError(f"{found.root}: layout kinetics needs CSV lists with {columns} here or one folder below")
    validated = any(cells["split"].lower().startswith("val") for _, cells in table)
    rows = defaultdict(list)
    for where, cells in table:
        part = _split(cells["split"], where)
        if validated and cells["split"].lower() == "test":
            part = None
        try:
            start, end = int(float(cells["time_start"])), int(float(cells["time_end"]))
        except ValueError:
            raise DataError(f"{where}: {cells['time_start']!r} to {cells['time_end']!r} are not seconds") from None
        clip = f"{cells['youtube_id']}_{start:06d}_{end:06d}"
        row = Entry(f"{clip}.mp4", cells.get("label") or None, part)
        rows[clip].append((where, row))
        rows[cells["youtube_id"]].append((where, row))
    return _join(found.videos, rows, lambda path: _class_and_stem(path).rpartition("/")[2])


def _csv(found: _Found, split: int) -> _Read:
    lists = _path_lists(found)
    if len(lists) != 1:
        raise DataError(
            f"data.root = {found.root}: layout csv needs one CSV list with a `path` column in this folder, and there "
            f"are {len(lists)} ({', '.join(lists) or 'none'}); name one as data.root, or set data.layout"
        )
    rows = defaultdict(list)
    for where, cells in _table(found.root / lists[0]):
        name = cells.pop("path")
        if not name:
            raise DataError(f"{where}: the path is empty")
        label, part = cells.pop("label", "") or None, _split(cells.pop("split", ""), where)
        rows[_relative(name, found.root)].append((where, Entry(name, label, part, cells)))
    # A list may also name files that no search finds: outside the root, hidden, or with another suffix.
    elsewhere = [path for path in rows.keys() - set(found.videos) if (found.root / path).is_file()]
    return _join([*found.videos, *elsewhere], rows, lambda path: path)


def _classes(found: _Found, split: int) -> _Read:
    by_split = all(path.split("/")[0].lower() in SPLITS for path in found.videos if "/" in path)
    entries = []
    for path in found.videos:
        *folders, _ = path.split("/")
        part = SPLITS[folders.pop(0).lower()] if by_split and folders else None
        entries.append(Entry(path, folders[0] if folders else None, part))
    return entries, []


def _folder(found: _Found, split: int) -> _Read:
    return [Entry(path) for path in found.videos], []


_READERS: Mapping[str, Callable[[_Found, int], _Read]] = {
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "kinetics": _kinetics,
    "csv": _csv,
    "classes": _classes,
    "folder": _folder,
}


# --- From lists to files ---


def _join(videos: Iterable[str], rows: _Rows, key: Callable[[str], str], classes: Collection[str] = ()) -> _Read:
    """Gives every video the row it answers to; one that answers to none keeps the label of its class folder."""
    entries: list[Entry] = []
    there: set[str] = set()
    for path in videos:
        same = rows.get(key(path), ())
        for where, row in same[1:]:
            first_where, first = same[0]
            if row[1:] != first[1:]:
                raise DataError(
                    f"{where}: lists {path} with label {row.label}, split {row.split}; {first_where} with label "
                    f"{first.label}, split {first.split}"
                )
        there.update(row.path for _, row in same)
        folder = os.path.basename(os.path.dirname(path))
        entries.append(same[0][1]._replace(path=path) if same else Entry(path, folder if folder in classes else None))
    return entries, sorted({row.path for same in rows.values() for _, row in same} - there)


def _class_and_stem(path: str) -> str:
    folder, _, file = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{os.path.splitext(file)[0]}"


def _relative(path: str, root: Path) -> str:
    """The form in which a search of the root would give this path, if it lies in there."""
    normal = Path(os.path.normpath(path))
    for base in (root, root.resolve()):
        if normal.is_relative_to(base):
            normal = normal.relative_to(base)
    return normal.as_posix()


# --- Reading lists ---


def _named(found: _Found, pattern: str) -> list[str]:
    return [path for path in found.lists if re.fullmatch(pattern, path.rpartition("/")[2])]


def _with_columns(found: _Found, columns: set[str]) -> list[str]:
    return [p for p in found.lists if _suffix(p) == "csv" and columns <= {c.lower() for c in _columns(found.root / p)}]


def _path_lists(found: _Found) -> list[str]:
    return [path for path in _with_columns(found, {"path"}) if "/" not in path]


def _lists_of_split(found: _Found, pattern: str, split: int, ending: str) -> list[str]:
    lists = _named(found, pattern)
    wanted = [path for path in lists if path.endswith(ending)]
    if not wanted:
        there = sorted({match["split"] for path in lists if (match := re.search(pattern, path))})
        raise DataError(
            f"data.split = {split}: no list named {ending} in {found.root} or one folder below it; there are lists of "
            f"split {', '.join(there) or 'none'}"
        )
    return wanted


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank, and where they stand."""
    for number, line in enumerate(_text(file).splitlines(), 1):
        if line.strip():
            yield f"{file} line {number}", line.strip()


def _columns(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            return [name.strip() for name in next(csv.reader(text), [])]
    except (OSError, csv.Error) as error:
        raise DataError(f"{file}: its first line cannot be read as CSV ({error})") from None


def _table(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file by column, and where they stand. Columns with a meaning here come in lower case."""
    ours = {"path", "label", *KINETICS_COLUMNS}
    columns = [name.lower() if name.lower() in ours else name for name in _columns(file)]
    if len(set(columns)) < len(columns):
        raise DataError(f"{file}: has two columns of one name ({', '.join(columns)})")
    reader = csv.reader(io.StringIO(_text(file), newline=""))
    try:
        next(reader)
        for cells in reader:
            where = f"{file} line {reader.line_num}"
            if cells and len(cells) != len(columns):
                raise DataError(f"{where}: has {len(cells)} cells under {len(columns)} columns")
            if cells:
                yield where, dict(zip(columns, map(str.strip, cells), strict=True))
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num}: is not valid CSV ({error})") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error})") from None


def _split(value: str, where: str) -> str | None:
    if value and value.lower() not in SPLITS:
        raise DataError(f"{where}: split {value!r} is none of {', '.join(SPLITS)}")
    return SPLITS[value.lower()] if value else None


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower()
