"""What is on disk below a root: the videos, and the text files that may be lists of them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.list_files import UnreadableList, VideoList, read_list
from cacl.loaders.catalog.layouts.matching import LooseNames
from cacl.loaders.catalog.layouts.suffixes import LIST_SUFFIXES, VIDEO_SUFFIXES, suffix_of

SYSTEM_FOLDERS = ("lost+found", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
"""Folders that systems make for themselves. Like what is hidden, they are not looked into."""
STEMS_OF_NO_LISTS = ("readme", "license", "licence", "changelog", "citation", "notice")
"""Stems of text files that may name a video without being a list."""


class FolderContents(NamedTuple):
    """What is on disk below a root; paths are relative to it, with forward slashes."""

    root: Path
    videos: Sequence[str]
    """The paths of all videos, sorted."""
    texts: Sequence[str]
    """Text files in the root or one folder below, but for those that go with one video."""
    lists: Mapping[str, VideoList | UnreadableList]
    """Those of them that list videos, by path, without the official lists that a layout reads line by line."""
    notes: Sequence[str]
    """Notes on folders that cannot be read."""
    root_is_list: bool = False
    """Whether data.root is a list, and the videos are just where those may be that it names."""

    def texts_named(self, pattern: str) -> list[str]:
        """Returns the text files whose whole name matches a regular expression."""
        return [path for path in self.texts if re.fullmatch(pattern, path.rpartition("/")[2])]

    def lists_of_fold(self, pattern: str, fold: int, ending: str) -> list[str]:
        """Finds the lists of one of the official folds.

        Args:
            pattern: A regular expression for the names of the lists of all folds, with a group `fold`.
            fold: The number of the fold.
            ending: How the names of the lists of this fold end.

        Returns:
            The paths of the lists.

        Raises:
            DataError: There is no such list.
        """
        listed = self.texts_named(pattern)
        wanted = [path for path in listed if path.endswith(ending)]
        if not wanted:
            there = sorted({match["fold"] for path in listed if (match := re.search(pattern, path))})
            raise DataError(
                f"data.fold = {fold}: no list named {ending} in {self.root} or one folder below it; there are lists "
                f"of fold {', '.join(there) or 'none'}"
            )
        return wanted


def search_folder(root: Path, official_lists: Collection[str]) -> FolderContents:
    """Searches a folder as a whole, and reads the lists in it and one folder below.

    Args:
        root: The folder.
        official_lists: Regular expressions for the names of lists that a layout reads line by line.

    Returns:
        What is in the folder. What is hidden is left out.

    Raises:
        DataError: The folder cannot be read.
    """
    files, notes = _find_files(root)
    videos = [path for path in files if suffix_of(path) in VIDEO_SUFFIXES]
    stems = {os.path.splitext(path)[0] for path in videos}
    candidates = [path for path in files if suffix_of(path) in LIST_SUFFIXES and path.count("/") <= 1]
    # Reading a named pipe would wait for whoever writes into it.
    texts = [path for path in candidates if os.path.splitext(path)[0] not in stems and not (root / path).is_fifo()]
    names, lists = LooseNames(videos), {}
    for path in texts:
        name = path.rpartition("/")[2]
        is_official = any(re.fullmatch(pattern, name) for pattern in official_lists)
        if not is_official and os.path.splitext(name)[0].lower() not in STEMS_OF_NO_LISTS:
            found = read_list(root / path, lambda name: bool(names.find(name)) or (root / name).is_file())
            if found is not None:
                lists[path] = found
    return FolderContents(root, videos, texts, lists, notes)


def search_list(file: Path) -> FolderContents:
    """Reads a list that is itself the root of a data set, and searches its folder if its names need that.

    Args:
        file: The list.

    Returns:
        The list, and the videos in its folder if it does not name all of its videos exactly.

    Raises:
        DataError: The file is no list of videos, or its folder cannot be read.
    """
    found = read_list(file, lambda name: (file.parent / name).is_file())
    if isinstance(found, UnreadableList):
        raise DataError(f"data.root = {found.message}")
    if found is None:
        raise DataError(f"data.root = {file}: is no list of videos; it needs a column `path`, or a video on each line")
    contents = FolderContents(file.parent, [], [file.name], {file.name: found}, [], root_is_list=True)
    # A list of Kinetics says nothing of folders, and another one may not spell names as the files do.
    names = [cells["path"] for _, cells in found.records() if "path" in cells]
    existing = {name for name in names if (file.parent / name).is_file()}
    if existing and all(name in existing or os.path.isabs(name) for name in names):
        return contents
    files, notes = _find_files(file.parent)
    return contents._replace(videos=[path for path in files if suffix_of(path) in VIDEO_SUFFIXES], notes=notes)


def _find_files(root: Path) -> tuple[list[str], list[str]]:
    """Returns the paths of all files that are not hidden, sorted, and notes on folders that cannot be read."""
    notes: list[str] = []
    return sorted(_walk(root, "", frozenset(), notes)), notes


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]], notes: list[str]) -> Iterator[str]:
    """Yields the paths of files. Links to folders are followed unless they lead to a folder further up."""
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
        if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
            continue
        # DirEntry.is_dir costs no system call, but raises on a link that leads to itself.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {here}, notes)
        else:
            yield prefix + entry.name
