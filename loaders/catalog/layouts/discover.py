"""Finding the videos of a data set and what its layout says of them. Nothing is decoded here.

Whatever is guessed, or found and not used, is told in `Listing.notes`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.layouts.hold_out import hold_out
from cacl.loaders.catalog.layouts.layout import Layout
from cacl.loaders.catalog.layouts.list_files import UnreadableList
from cacl.loaders.catalog.layouts.listing import LayoutResult, Listing, merge_linked_files
from cacl.loaders.catalog.layouts.search import FolderContents, search_folder, search_list
from cacl.loaders.catalog.layouts.suffixes import LIST_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from cacl.registry import LAYOUTS

NAMED_LISTS = 3
"""This many lists that are not used are named; more are counted."""


def discover_videos(config: DataConfig) -> Listing:
    """Finds the video files of `config.root` and reads labels and splits from its lists or folders.

    Args:
        config: Where the data set is and which layout it has. Where labels but no splits are known,
            `config.test_share` holds videos out (`hold_out`).

    Returns:
        All videos, each file once.

    Raises:
        DataError: There is no such root or no video in it; lists are absent, damaged or contradictory; one file is
            reached by paths that contradict each other; or `auto` cannot tell splits from classes.
    """
    if not config.root:
        raise DataError("data.root is not set: name a folder of videos, or a list of them")
    root = Path(os.path.abspath(os.path.expanduser(config.root)))
    if not os.path.exists(root):
        raise DataError(f"data.root = {root}: does not exist, or may not be read")

    if root.is_dir():
        contents = search_folder(root, [layout.fold_lists for layout in _layouts().values() if layout.fold_lists])
    else:
        _check_root_file(root, config.layout)
        contents = search_list(root)
    layout = _recognise(contents) if config.layout == "auto" else config.layout
    result = LAYOUTS.load(layout).read(contents, config.fold)
    if unknown := {str(entry.split) for entry in result.entries} - {"train", "val", "test", "None"}:
        raise DataError(f"data.layout = {layout}: gives the split {min(unknown)}; there are train, val, test and None")
    entries, duplicates = merge_linked_files(contents.root, result.entries)
    if not entries:
        raise DataError(_no_videos(root, contents, result))
    if config.test_share and not any(entry.split for entry in entries):
        if not any(entry.label for entry in entries):
            raise DataError(
                f"data.test_share = {config.test_share} holds out videos of each class, but layout {layout} tells no "
                f"classes in {root}"
            )
        entries = hold_out(entries, config.test_share)
    return Listing(
        root=contents.root,
        layout=layout,
        entries=tuple(sorted(entries, key=lambda entry: entry.path)),
        missing=tuple(result.missing),
        notes=(*result.notes, *duplicates, *_unused_lists(contents, result.used_lists, layout), *contents.notes),
    )


def official_folds(listing: Listing) -> list[int]:
    """Returns the numbers of the official folds that there are lists of; none for a layout without numbered folds."""
    pattern = LAYOUTS.load(listing.layout).fold_lists
    if pattern is None:
        return []
    texts = [*listing.root.glob("*.txt"), *listing.root.glob("*/*.txt")]
    return sorted({int(match["fold"]) for file in texts if (match := re.fullmatch(pattern, file.name))})


def _layouts() -> dict[str, Layout]:
    """Returns the layouts in the order in which `auto` tries them. The last of this package takes any folder."""
    names = LAYOUTS.names()
    names.sort(key=LAYOUTS.is_own)
    return {name: LAYOUTS.load(name) for name in names}


def _recognise(contents: FolderContents) -> str:
    """Returns the name of the first layout that the contents have. The lists of two published sets are refused."""
    layouts = _layouts()
    published = {
        name: evidence
        for name, layout in layouts.items()
        if layout.is_published_set and (evidence := layout.recognise(contents))
    }
    if len(published) > 1:
        which = " and of ".join(f"{name} ({evidence})" for name, evidence in published.items())
        raise DataError(f"data.root = {contents.root}: holds lists of {which}; name one's folder, or set data.layout")
    others = (name for name, layout in layouts.items() if not layout.is_published_set and layout.recognise(contents))
    return next(iter(published), None) or next(others)


def _check_root_file(file: Path, layout: str) -> None:
    """Checks that a root that is a file may be a list of this layout; `auto` may find one that takes lists."""
    suffix = suffix_of(file.name)
    if suffix in VIDEO_SUFFIXES:
        raise DataError(f"data.root = {file}: is a single file; give the folder that it lies in, or a list of videos")
    takes_list = layout == "auto" or LAYOUTS.load(layout).root_may_be_list
    if suffix not in LIST_SUFFIXES or not takes_list:
        raise DataError(f"data.root = {file}: is a file; layout {layout} takes a folder (auto and csv also a list)")


def _no_videos(root: Path, contents: FolderContents, result: LayoutResult) -> str:
    looked_for = " ".join(f".{suffix}" for suffix in VIDEO_SUFFIXES)
    listed = ""
    if result.missing:
        listed = f"; none of the {len(result.missing)} listed ones is there, such as {result.missing[0]}"
    notes = "; ".join(("", *contents.notes))
    return f"data.root = {root}: holds no video (looked for {looked_for}){listed}{notes}"


def _unused_lists(contents: FolderContents, used: Collection[str], layout: str) -> Iterator[str]:
    unused = sorted(contents.lists.keys() - set(used))
    instead = f"layout {layout}" + (f" takes {', '.join(used)}" if used else "")
    for path in unused[:NAMED_LISTS]:
        found = contents.lists[path]
        what = found.message if isinstance(found, UnreadableList) else f"{found.file}: lists videos"
        yield f"{what}; it is not used ({instead})"
    if len(unused) > NAMED_LISTS:
        yield f"{len(unused) - NAMED_LISTS} more lists are not used, such as {unused[-1]}"
