"""Lists of videos in text files. Which files their lines mean is for the layouts and `matching` to say.

A list names a video on each line: between commas, semicolons, tabs, bars or blanks, with a header or without, in UTF-8
or UTF-16. Lines that begin with # are comments, unless they name a video. Under a header, the column `path` names the
videos, or else the one that holds names of video files, or one that is usually called so. Without a header the path
stands first, as VideoMAE, V-JEPA, SlowFast and MMAction2 write their lists: `path`, `path label`, `path frames label`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cacl.errors import DataError, reason_of
from cacl.loaders.catalog.layouts.list_format import (
    KINETICS_COLUMNS,
    PATH_COLUMNS,
    Row,
    VideoExists,
    blank_comments,
    decode_text,
    detect_format,
    mentions_videos,
    split_rows,
)
from cacl.loaders.catalog.layouts.split_names import SPLIT_WORDS
from cacl.loaders.catalog.layouts.suffixes import MARKUP_SUFFIXES, SPREADSHEET_SUFFIXES, VIDEO_SUFFIXES

LABEL_COLUMNS = ("label", "class", "class_name", "category", "action")
"""The usual names of the column of labels, in lower case."""
SAMPLE_LINES = 200
"""A list is recognised by this many of its first lines."""
HEAD_BYTES = 1 << 16
"""The head of a file, by which it is decided whether to read it whole."""
WAY_OUT = "give it as CSV under a header such as path,label,split"
_HINT = re.compile(
    "|".join([*(rf"\.{suffix}" for suffix in VIDEO_SUFFIXES), *PATH_COLUMNS, "youtube_id"]).encode(), re.I
)
"""What the head of a list has somewhere: other files are not read whole."""


class VideoList(NamedTuple):
    """A list of videos as it stands in a file."""

    file: Path
    columns: Sequence[str]
    """The names of the columns: `path`, `label`, `split` and those of Kinetics by these names, others as they are
    written; "" for a column without a name."""
    rows: Sequence[Row]
    guess: str = ""
    """Which columns were taken for what, where the list does not say so by itself: a sentence without the name of the
    file."""

    @property
    def is_kinetics(self) -> bool:
        """Whether the list has the columns of the official lists of Kinetics."""
        return set(self.columns) >= KINETICS_COLUMNS

    def records(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Goes through the rows.

        Yields:
            The file and line of a row, for messages, and its cells by the names of their columns.

        Raises:
            DataError: A row has more or fewer cells than there are columns.
        """
        for number, cells in self.rows:
            where = f"{self.file} line {number}"
            if len(cells) != len(self.columns):
                raise DataError(f"{where}: has {len(cells)} cells under {len(self.columns)} columns")
            yield where, {name: cell for name, cell in zip(self.columns, cells, strict=True) if name}


class UnreadableList(NamedTuple):
    """A file that names videos, but cannot be read as a list."""

    message: str
    """The message begins with the file and says why."""
    is_damaged: bool
    """Whether it clearly is a list, so that going on without it may be wrong."""


def read_list(file: Path, video_exists: VideoExists) -> VideoList | UnreadableList | None:
    """Reads a file as a list of videos. It is only read whole if its head looks like one.

    Args:
        file: The file.
        video_exists: A function that tells whether there is a video of a name.

    Returns:
        The list; or why it cannot be read; or None if the file is no list of videos.
    """
    suffix = file.suffix[1:].lower()
    if suffix in SPREADSHEET_SUFFIXES:
        return UnreadableList(f"{file}: may list videos, but is no text: {WAY_OUT}", is_damaged=False)
    is_markup = suffix in MARKUP_SUFFIXES
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
            if not _HINT.search(head.replace(b"\0", b"")):
                return None
            sample = blank_comments(decode_text(head, "replace"), video_exists)[:SAMPLE_LINES]
            form = None if is_markup else detect_format(sample, video_exists)
            if form is None:
                if not mentions_videos(sample, video_exists, in_half_of_the_lines=not is_markup):
                    return None
                return UnreadableList(
                    f"{file}: names videos, but not in a form that is read: {WAY_OUT}", is_damaged=False
                )
            text = decode_text(head + opened.read())
    except OSError as error:
        return UnreadableList(f"{file}: cannot be read ({reason_of(error)})", is_damaged=False)
    except UnicodeDecodeError as error:
        return UnreadableList(f"{file}: cannot be read as UTF-8 or UTF-16 text ({error})", is_damaged=True)
    rows, fault = split_rows(blank_comments(text, video_exists), form.delimiter)
    if fault:
        return UnreadableList(f"{file} {fault}", is_damaged=True)
    if form.has_header:
        return _with_header(file, rows, form.path_column)
    return _without_header(file, rows, form.path_column or 0, video_exists)


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Goes through the lines of a text file that are not blank.

    Args:
        file: A file in UTF-8 or UTF-16.

    Yields:
        The file and line, for messages, and the text of the line without blanks around it.

    Raises:
        DataError: The file cannot be read as text.
    """
    try:
        text = decode_text(file.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 or UTF-16 text ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{file} line {number}", line.strip()


def _with_header(file: Path, rows: Sequence[Row], path: int | None) -> VideoList | UnreadableList:
    """Takes the first row for the names of the columns; `path` is the column that names the videos."""
    (line, header), *rows = rows
    lower = [name.lower() for name in header]
    widths = Counter(len(cells) for _, cells in rows)
    if path is not None and lower[path] not in PATH_COLUMNS and widths[len(header)] == 0:
        return UnreadableList(
            f"{file} line {line}: is no header of the columns below: remove it or put # before it", is_damaged=True
        )
    free = [k for k in range(len(header)) if k != path]
    label = [lower.index(name) for name in LABEL_COLUMNS if name in lower and lower.index(name) != path]
    split = [k for k in free if lower[k] == "split"] or [k for k in free if _holds_splits(rows, k)]
    taken = {"path": path, "label": next(iter(label), None), "split": next(iter(split), None)}
    columns = [name if name in KINETICS_COLUMNS else given for name, given in zip(lower, header, strict=True)]
    for name, column in taken.items():
        if column is not None:
            columns[column] = name
    names = [name for name in columns if name]
    if len(set(map(str.lower, names))) < len(names):
        return UnreadableList(f"{file}: has two columns of one name ({', '.join(lower)})", is_damaged=True)
    others = {header[k]: name for name, k in taken.items() if k is not None and lower[k] != name}
    guess = "; ".join(f"its column {given} is taken for the {name}" for given, name in others.items())
    return VideoList(file, columns, rows, guess)


def _without_header(
    file: Path, rows: Sequence[Row], path: int, video_exists: VideoExists
) -> VideoList | UnreadableList:
    """Names the columns by what they hold; `path` is the column that names the videos."""

    def unreadable(reason: str) -> UnreadableList:
        return UnreadableList(f"{file}: {reason}", is_damaged=False)

    if not any(video_exists(cell) for _, cells in rows for cell in cells[path : path + 1]):
        return unreadable(f"names no video that is there, but for example {rows[0][1][0]}")
    if path != 0:
        return unreadable(f"names videos behind something else, and has no header: {WAY_OUT}")
    widths = Counter(len(cells) for _, cells in rows)
    width, count = widths.most_common(1)[0]
    if 2 * count <= len(rows):
        return unreadable(f"its lines have {min(widths)} to {max(widths)} columns: {WAY_OUT}")
    used = [k for k in range(1, width) if any(len(cells) > k and cells[k] for _, cells in rows)]
    splits = [k for k in used if _holds_splits(rows, k)]
    others = [k for k in used if k not in splits]
    numbers = [k for k in others if all(re.fullmatch(r"-?\d+", cells[k]) for _, cells in rows if len(cells) > k)]
    names = {1: ["label"], 2: ["frames", "label"]}.get(len(others), [])
    if len(splits) > 1 or len(others) > 2 or (len(others) == 2 and others[0] not in numbers):
        return unreadable(f"has {width} columns and no header that says what they are: {WAY_OUT}")
    columns = [""] * width
    columns[0] = "path"
    for k, name in zip([*splits, *others], [*(["split"] * len(splits)), *names], strict=True):
        columns[k] = name
    told = ", ".join(name for name in columns if name)
    return VideoList(file, columns, rows, f"without a header, taken for a list of {told}")


def _holds_splits(rows: Sequence[Row], column: int) -> bool:
    """Tells whether all cells of a column that are not empty are words for splits."""
    values = {cells[column].lower() for _, cells in rows if len(cells) > column} - {""}
    return bool(values) and values <= SPLIT_WORDS.keys()
