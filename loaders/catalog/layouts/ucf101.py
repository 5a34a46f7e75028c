"""UCF101: `trainlist0N.txt` and `testlist0N.txt` with lines `<class>/<video>`, and class folders.

Class numbers behind the names, as the training lists have them, are left alone.
"""

from __future__ import annotations

import re
from collections import defaultdict

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.layout import Layout
from cacl.loaders.catalog.layouts.list_files import read_lines
from cacl.loaders.catalog.layouts.listing import LayoutResult, VideoEntry
from cacl.loaders.catalog.layouts.matching import ListedVideo, class_and_stem, match_listed_videos
from cacl.loaders.catalog.layouts.search import FolderContents

FOLD_LISTS = r"(train|test)list(?P<fold>\d+)\.txt"


def recognise(contents: FolderContents) -> str:
    """Returns the first of the official lists, or "" if there is none."""
    return next(iter(contents.texts_named(FOLD_LISTS)), "")


def read(contents: FolderContents, fold: int) -> LayoutResult:
    """Reads the lists of one official fold.

    Args:
        contents: What is on disk below the root.
        fold: The number of the official fold, 1 to 3.

    Returns:
        All videos; those in neither list have no split.

    Raises:
        DataError: A list is not there, a line is not understood, or both lists name the same video.
    """
    classes = set()
    listed = defaultdict(list)
    for part in ("train", "test"):
        for path in contents.lists_of_fold(FOLD_LISTS, fold, f"{part}list{fold:02d}.txt"):
            for where, line in read_lines(contents.root / path):
                match = re.fullmatch(r"(?P<name>(?P<label>[^/]+)/[^/]+?)(\s+\d+)?", line)
                if not match:
                    raise DataError(
                        f"{where}: {line!r} is not <class>/<video>, perhaps with the class number behind it"
                    )
                name, label = match["name"], match["label"]
                classes.add(label)
                listed[class_and_stem(name)].append(ListedVideo(where, VideoEntry(name, label, part)))
    return match_listed_videos(contents.videos, listed, class_and_stem, classes)


LAYOUT = Layout(recognise=recognise, read=read, is_published_set=True, fold_lists=FOLD_LISTS)
