"""A folder of videos without labels, at any depth, perhaps in one folder per split."""

from __future__ import annotations

from cacl.loaders.catalog.layouts.folder_labels import read_folders
from cacl.loaders.catalog.layouts.layout import Layout
from cacl.loaders.catalog.layouts.listing import LayoutResult, VideoEntry
from cacl.loaders.catalog.layouts.search import FolderContents


def recognise(contents: FolderContents) -> str:
    """Returns the root: whatever is no other layout is this one."""
    return str(contents.root)


def read(contents: FolderContents, fold: int) -> LayoutResult:
    """Takes all videos, with the splits that their folders tell.

    Args:
        contents: What is on disk below the root.
        fold: The number of the official fold, which folders do not tell; it is not looked at.

    Returns:
        All videos without labels.
    """
    folders = read_folders(contents.videos)
    notes = [*folders.notes, *([f"{folders.doubt}; no split is taken from them"] if folders.doubt else [])]
    return LayoutResult([VideoEntry(path, None, folders.splits[path]) for path in contents.videos], notes=notes)


LAYOUT = Layout(recognise=recognise, read=read)
