"""Class folders: one folder per class, within or around one folder per split if there are such."""

from __future__ import annotations

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.folder_labels import read_class_folders, read_folders
from cacl.loaders.catalog.layouts.layout import Layout
from cacl.loaders.catalog.layouts.listing import LayoutResult, VideoEntry
from cacl.loaders.catalog.layouts.search import FolderContents


def recognise(contents: FolderContents) -> str:
    """Returns the root if its folders tell classes, or "" if they do not.

    Args:
        contents: What is on disk below the root.

    Raises:
        DataError: The folders may be splits or classes.
    """
    folders = read_folders(contents.videos)
    if folders.doubt:
        raise DataError(
            f"data.root = {contents.root}: {folders.doubt}. Name all of them as splits (train, val, test) or take the "
            "others away; or, if all are classes, set data.layout = classes"
        )
    return str(contents.root) if folders.tell_classes else ""


def read(contents: FolderContents, fold: int) -> LayoutResult:
    """Reads classes, and splits if there are some, from the folders of the videos.

    Args:
        contents: What is on disk below the root.
        fold: The number of the official fold, which folders do not tell; it is not looked at.

    Returns:
        All videos; those in no class folder have no label.

    Raises:
        DataError: No video lies in a folder of its class.
    """
    folders = read_folders(contents.videos)
    notes = [*folders.notes, *([f"{folders.doubt}; all are taken for classes"] if folders.doubt else [])]
    if not any(folders.labels.values()):
        folders = read_class_folders(contents.videos)
        notes = ["folders with names of splits are taken for classes, since none lie below or around them"]
    if contents.videos and not any(folders.labels.values()):
        raise DataError(f"data.root = {contents.root}: layout classes, but no video lies in a folder of its class")
    entries = [VideoEntry(path, folders.labels[path], folders.splits[path]) for path in contents.videos]
    return LayoutResult(entries, notes=notes)


LAYOUT = Layout(recognise=recognise, read=read)
