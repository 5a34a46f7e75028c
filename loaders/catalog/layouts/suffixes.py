"""The suffixes by which files are told apart before any of them is opened."""

from __future__ import annotations

import os

VIDEO_SUFFIXES = ("avi", "mp4", "mov", "mkv", "webm", "mpg", "mpeg", "m4v", "wmv", "flv", "3gp", "ts", "mts", "ogv")
"""The suffixes of video files, which count in any case."""
SPREADSHEET_SUFFIXES = ("xlsx", "xls", "ods", "parquet")
"""The suffixes of tables that are no text."""
MARKUP_SUFFIXES = ("json", "jsonl", "yaml", "yml", "xml")
"""The suffixes of texts that are no tables."""
LIST_SUFFIXES = ("", "txt", "csv", "tsv", "lst", "list", *MARKUP_SUFFIXES, *SPREADSHEET_SUFFIXES)
"""The suffixes of files that may be lists of videos, or be taken for some; not all of these are read."""


def suffix_of(path: str) -> str:
    """Returns the suffix of a path in lower case and without its dot."""
    return os.path.splitext(path)[1][1:].lower()
