"""Lists of paths with, if known, labels and splits.

They lie in the root; also one folder below, if the name of a list tells its split, as train.csv and val.csv do. Columns
besides path, label and split become attributes. What lists do not tell at all, labels or splits, is taken from the
folders of the videos.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.folder_labels import read_folders
from cacl.loaders.catalog.layouts.layout import Layout
from cacl.loaders.catalog.layouts.list_files import UnreadableList, VideoList
from cacl.loaders.catalog.layouts.listing import LayoutResult, VideoEntry
from cacl.loaders.catalog.layouts.matching import ListedVideo, match_listed_videos
from cacl.loaders.catalog.layouts.search import FolderContents
from cacl.loaders.catalog.layouts.split_names import parse_split, split_of_list


def recognise(contents: FolderContents) -> str:
    """Returns the first list of paths, or "" if there is none."""
    return next(iter(_path_lists(contents)), "")


def read(contents: FolderContents, fold: int) -> LayoutResult:
    """Reads one list, or several of which some tell splits.

    Args:
        contents: What is on disk below the root, which may itself be a list.
        fold: The number of the official fold, which such lists do not have; it is not looked at.

    Returns:
        All videos below the root and those elsewhere that a list names; just the named ones where the root is a list.

    Raises:
        DataError: It is not clear which lists to take, or one is damaged or contradicts itself or another.
    """
    chosen = _choose_lists(contents)
    records = [(path, where, cells) for path, found in chosen.items() for where, cells in found.records()]
    has_labels = not {cells.get("label", "") for _, _, cells in records} <= {"", "-1"}
    videos, listed = set(contents.videos), defaultdict(list)
    root_spellings = str(contents.root), os.path.realpath(contents.root)
    for path, where, cells in records:
        name = cells.pop("path")
        if not name:
            raise DataError(f"{where}: the path is empty")
        label = cells.pop("label", "")
        part = parse_split(cells.pop("split"), where) if "split" in cells else split_of_list(path)
        video, beside = (
            _below_root(os.path.join(folder, name), root_spellings) for folder in ("", os.path.dirname(path))
        )
        if beside in videos and video not in videos:
            video = beside
        entry = VideoEntry(name, (label or None) if has_labels else None, part, cells)
        listed[video].append(ListedVideo(where, entry))
    # A list may also name files that no search finds: outside the root, hidden, or with another suffix.
    elsewhere = [path for path in listed.keys() - videos if (contents.root / path).is_file()]
    result = match_listed_videos(
        [*contents.videos, *elsewhere], listed, lambda path: path, listed_only=contents.root_is_list
    )
    notes = [*_guesses(chosen), *result.notes]
    splits = any(entry.split for entry in result.entries)
    without = [entry.path for entry in result.entries if not entry.split and entry.path in listed]
    if splits and without:
        count, first = len(without), without[0]
        notes.append(f"listed videos whose split no list tells: {count}, such as {first}; they belong to none")
    has_splits = splits or any(_tells_splits(path, found) for path, found in chosen.items())
    result = result._replace(used_lists=list(chosen), notes=notes)
    return _complete_from_folders(result, has_labels=has_labels, has_splits=has_splits)


def _below_root(path: str, root_spellings: Sequence[str]) -> str:
    """Returns the form in which a search of the root would give this path, if it lies in there."""
    normal = os.path.normpath(path)
    for root in root_spellings:
        normal = normal.removeprefix(os.path.join(root, ""))
    return normal


def _complete_from_folders(result: LayoutResult, *, has_labels: bool, has_splits: bool) -> LayoutResult:
    """Takes labels or splits from the folders, where the lists tell none at all."""
    entries, notes = result.entries, list(result.notes)
    within = [entry.path for entry in entries if not entry.path.startswith(("/", "../"))]
    folders = read_folders(within)
    if not has_labels and folders.tell_classes:
        entries = [entry._replace(label=folders.labels.get(entry.path)) for entry in entries]
        notes.append("lists tell no labels: the folders of the videos do")
    if not has_splits and any(folders.splits.values()):
        entries = [entry._replace(split=folders.splits.get(entry.path)) for entry in entries]
        notes += ["lists tell no splits: the folders of the videos do", *folders.notes]
    elif not has_splits and folders.doubt:
        notes.append(f"lists tell no splits, and {folders.doubt}; no split is taken from them")
    return result._replace(entries=entries, notes=notes)


# --- Choosing lists ---


def _path_lists(contents: FolderContents) -> dict[str, VideoList | UnreadableList]:
    """Returns the lists of paths in the root, and others if they tell splits or no other list is there.

    Damaged ones are among them, so that they stop whoever would use them.
    """
    given = {
        path: found
        for path, found in contents.lists.items()
        if (found.is_damaged if isinstance(found, UnreadableList) else "path" in found.columns)
    }
    return {path: found for path, found in given.items() if "/" not in path or _tells_splits(path, found)} or (
        given if len(given) == 1 else {}
    )


def _choose_lists(contents: FolderContents) -> dict[str, VideoList]:
    """Returns one list, or several of which some tell splits: others beside them may tell labels.

    Raises:
        DataError: A list is damaged, or it is not clear which to take.
    """
    given: dict[str, VideoList] = {}
    for path, found in _path_lists(contents).items():
        if isinstance(found, UnreadableList):
            raise DataError(found.message)
        given[path] = found
    if len(given) != 1 and not any(_tells_splits(path, found) for path, found in given.items()):
        raise DataError(
            f"data.root = {contents.root}: layout csv needs one list with a column `path` in this folder, or lists "
            f"whose names tell splits, and there are {len(given)} ({', '.join(given) or 'none'}); name one as "
            "data.root, or set data.layout"
        )
    return given


def _tells_splits(path: str, found: VideoList | UnreadableList) -> bool:
    return split_of_list(path) is not None or (isinstance(found, VideoList) and "split" in found.columns)


def _guesses(chosen: Mapping[str, VideoList]) -> Iterator[str]:
    """Yields what was taken for what in these lists, those alike together."""
    alike: dict[str, list[str]] = defaultdict(list)
    for path, found in chosen.items():
        alike[found.guess].append(path)
    for guess, paths in alike.items():
        if guess:
            yield f"{', '.join(paths)}: {guess}"
    by_name = {path: split_of_list(path) for path, found in chosen.items() if "split" not in found.columns}
    if told := ", ".join(f"{split} by {path}" for path, split in by_name.items() if split):
        yield f"splits told by the names of lists: {told}"


LAYOUT = Layout(recognise=recognise, read=read, root_may_be_list=True)
