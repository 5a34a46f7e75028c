"""HMDB51: `<class>_test_split<N>.txt` with lines `<video> 0, 1 or 2` (unused, train, test), and class folders."""

from __future__ import annotations

import re
from collections import defaultdict

from cacl.errors import DataError
from cacl.loaders.catalog.layouts.layout import Layout
from cacl.loaders.catalog.layouts.list_files import read_lines
from cacl.loaders.catalog.layouts.listing import LayoutResult, VideoEntry
from cacl.loaders.catalog.layouts.matching import ListedVideo, class_and_stem, match_listed_videos
from cacl.loaders.catalog.layouts.search import FolderContents

FOLD_LISTS = r".+_test_split(?P<fold>\d+)\.txt"
SPLITS_BY_DIGIT = {"0": None, "1": "train", "2": "test"}


def recognise(contents: FolderContents) -> str:
    """Returns the first of the official lists, or "" if there is none."""
    return next(iter(contents.texts_named(FOLD_LISTS)), "")


def read(contents: FolderContents, fold: int) -> LayoutResult:
    """Reads the lists of one official fold, of which there is one for each class.

    Args:
        contents: What is on disk below the root.
        fold: The number of the official fold, 1 to 3.

    Returns:
        All videos; those that the fold does not use have no split.

    Raises:
        DataError: There is no list of this fold, or none of a class that has lists of other folds, or a line is not
            understood.
    """
    ending = f"_test_split{fold}.txt"
    classes = set()
    listed = defaultdict(list)
    for path in contents.texts_named(FOLD_LISTS):  # A class without its list would be left out in silence.
        contents.lists_of_fold(FOLD_LISTS, fold, f"{_class_of(path)}{ending}")
    for path in contents.lists_of_fold(FOLD_LISTS, fold, ending):
        label = _class_of(path)
        classes.add(label)
        for where, line in read_lines(contents.root / path):
            match = re.fullmatch(r"(?P<file>.+?)\s+(?P<part>[012])", line)
            if not match:
                raise DataError(f"{where}: {line!r} does not end in 0 (unused), 1 (train) or 2 (test)")
            name = f"{label}/{match['file']}"
            entry = VideoEntry(name, label, SPLITS_BY_DIGIT[match["part"]])
            listed[class_and_stem(name)].append(ListedVideo(where, entry))
    return match_listed_videos(contents.videos, listed, class_and_stem, classes)


def _class_of(path: str) -> str:
    """Returns the class that the name of a list begins with."""
    return path.rpartition("/")[2].rpartition("_test_split")[0]


LAYOUT = Layout(recognise=recognise, read=read, is_published_set=True, fold_lists=FOLD_LISTS)
