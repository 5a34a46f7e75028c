"""Kinetics: CSV lists with the columns youtube_id, time_start, time_end, split and mostly label.

The videos, anywhere below the root, are named `<youtube_id>_<start>_<end>` or plainly `<youtube_id>`. The test list
comes without labels: what stands for it where models are compared is the validation list, which is `val` here.
"""

from __future__ import annotations

from collections import defaultdict

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.layout import Layout
from cacl.loaders.catalog.layouts.list_files import VideoList
from cacl.loaders.catalog.layouts.list_format import KINETICS_COLUMNS
from cacl.loaders.catalog.layouts.listing import LayoutResult, VideoEntry
from cacl.loaders.catalog.layouts.matching import ListedVideo, class_and_stem, match_listed_videos
from cacl.loaders.catalog.layouts.search import FolderContents
from cacl.loaders.catalog.layouts.split_names import parse_split

NO_TEST_LABELS = (
    "Kinetics gives no labels for its test videos: its validation list stands for them where results are compared "
    "(cacl eval retrieval --queries val)"
)


def recognise(contents: FolderContents) -> str:
    """Returns the first list with the columns of Kinetics, or "" if there is none."""
    return next(iter(_kinetics_lists(contents)), "")


def read(contents: FolderContents, fold: int) -> LayoutResult:
    """Reads all lists with the columns of Kinetics.

    Args:
        contents: What is on disk below the root.
        fold: The number of the official fold, of which Kinetics has only one; it is not looked at.

    Returns:
        All videos; those in no list have neither label nor split.

    Raises:
        DataError: There is no such list, a line is not understood, or lines about one video contradict each other.
    """
    used = _kinetics_lists(contents)
    if not used:
        columns = ", ".join(["label", *sorted(KINETICS_COLUMNS)])
        raise DataError(f"{contents.root}: layout kinetics needs CSV lists with {columns} here or one folder below")
    listed = defaultdict(list)
    labelled_splits: set[str | None] = set()
    for found in used.values():
        for where, cells in found.records():
            try:
                start, end = int(float(cells["time_start"])), int(float(cells["time_end"]))
            except ValueError:
                raise DataError(f"{where}: {cells['time_start']!r} to {cells['time_end']!r} are not seconds") from None
            clip = f"{cells['youtube_id']}_{start:06d}_{end:06d}"
            entry = VideoEntry(f"{clip}.mp4", cells.get("label") or None, parse_split(cells["split"], where))
            listed[clip].append(ListedVideo(where, entry))
            listed[cells["youtube_id"]].append(ListedVideo(where, entry))
            if entry.label:
                labelled_splits.add(entry.split)
    result = match_listed_videos(contents.videos, listed, _stem)
    notes = [*result.notes]
    if "val" in labelled_splits and "test" not in labelled_splits:
        notes.append(NO_TEST_LABELS)
    return result._replace(notes=notes, used_lists=list(used))


def _kinetics_lists(contents: FolderContents) -> dict[str, VideoList]:
    return {path: found for path, found in contents.lists.items() if isinstance(found, VideoList) and found.is_kinetics}


def _stem(path: str) -> str:
    return class_and_stem(path).rpartition("/")[2]


LAYOUT = Layout(recognise=recognise, read=read, is_published_set=True, root_may_be_list=True)
