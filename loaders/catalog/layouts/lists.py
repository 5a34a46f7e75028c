"""Lists of videos in text files. Which files a list means is for `layouts` and `entries` to say.

A list names a video on each line: between commas, semicolons, tabs, bars or blanks, with a header or without, in UTF-8
or UTF-16. Lines that begin with # are comments, unless they name a video. Under a header, the column `path` names the
videos, or else the one that holds names of video files, or one that is usually called so. Without a header the path
stands first, as VideoMAE, V-JEPA, SlowFast and MMAction2 write their lists: `path`, `path label`, `path frames label`.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cacl.errors import DataError, reason_of
from cacl.loaders.catalog.layouts.folders import SPLITS

SUFFIXES = ("avi", "mp4", "mov", "mkv", "webm", "mpg", "mpeg", "m4v", "wmv", "flv", "3gp", "ts", "mts", "ogv")
"""How video files are known, in any case."""

PATH_COLUMNS = (
    *("path", "video_path", "file_path", "filepath", "clip_path", "filename", "file_name", "file"),
    *("video", "video_name", "video_id", "clip", "clip_name"),
)
SPREADSHEETS = ("xlsx", "xls", "ods", "parquet")
"""Suffixes of tables that are no text."""
MARKED_UP = ("json", "jsonl", "yaml", "yml", "xml")
"""Suffixes of texts that are no tables."""
LABEL_COLUMNS = ("label", "class", "class_name", "category", "action")
KINETICS_COLUMNS = {"youtube_id", "time_start", "time_end", "split"}

DELIMITERS = "\t,;| "
SAMPLE = 200
"""Lines by which a list is recognised."""
WAY_OUT = "give it as CSV under a header such as path,label,split"
HEAD_BYTES = 1 << 16
_HINT = re.compile("|".join([*(rf"\.{suffix}" for suffix in SUFFIXES), *PATH_COLUMNS, "youtube_id"]).encode(), re.I)
"""What the head of a list has somewhere: other files are not read whole."""
_VIDEO = re.compile(rf"(?P<quote>\"?)(?P<path>.+\.(?:{'|'.join(SUFFIXES)}))(?P=quote)(?:\s+(?P<rest>.*))?", re.I)
"""The name of a video, and what stands behind it after a blank."""
_MENTION = re.compile(rf"[^\s,;:|=\"'<>()\[\]]+\.(?:{'|'.join(SUFFIXES)})\b", re.I)
"""What may be the name of a video, in any text."""

IsThere: TypeAlias = Callable[[str], bool]
"""Whether there is a video of this name."""
_Row: TypeAlias = tuple[int, Sequence[str]]
"""The number of a line, and its cells."""


class Table(NamedTuple):
    """A list of videos."""

    file: Path
    columns: Sequence[str]
    """`path`, `label`, `split` and those of Kinetics by these names, others as they are written; "" for one without."""
    rows: Sequence[_Row]
    taken: str = ""
    """What was taken for what, where the list does not say so by itself: a sentence without the name of the file."""

    def records(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The rows by column, and where they stand. Raises DataError for one that has other cells than columns."""
        for number, cells in self.rows:
            where = f"{self.file} line {number}"
            if len(cells) != len(self.columns):
                raise DataError(f"{where}: has {len(cells)} cells under {len(self.columns)} columns")
            yield where, {name: cell for name, cell in zip(self.columns, cells, strict=True) if name}


class Unread(NamedTuple):
    """A file that names videos, but cannot be read as a list."""

    message: str
    """Begins with the file and says why."""
    damaged: bool
    """Whether it clearly is a list, so that going on without it may be wrong."""


def read(file: Path, is_there: IsThere) -> Table | Unread | None:
    """Reads a file as a list of videos; None if it is none. It is only read whole if its head looks like one."""
    suffix = file.suffix[1:].lower()
    if suffix in SPREADSHEETS:
        return Unread(f"{file}: may list videos, but is no text: {WAY_OUT}", damaged=False)
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
            if not _HINT.search(head.replace(b"\0", b"")):
                return None
            sample = _without_comments(_decoded(head, "replace"), is_there)[:SAMPLE]
            form = None if suffix in MARKED_UP else _form(sample, is_there)
            if form is None:
                return _mentions(file, sample, is_there, everywhere=suffix not in MARKED_UP)
            text = _decoded(head + opened.read())
    except OSError as error:
        return Unread(f"{file}: cannot be read ({reason_of(error)})", damaged=False)
    except UnicodeDecodeError as error:
        return Unread(f"{file}: cannot be read as UTF-8 or UTF-16 text ({error})", damaged=True)
    rows, fault = _rows(_without_comments(text, is_there), form.delimiter)
    if fault:
        return Unread(f"{file} {fault}", damaged=True)
    return _with_header(file, rows, form.path) if form.header else _without_header(file, rows, form.path or 0, is_there)


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank, and where they stand. Raises DataError if it is none."""
    try:
        text = _decoded(file.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 or UTF-16 text ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{file} line {number}", line.strip()


# --- How a list is written ---


class _Form(NamedTuple):
    delimiter: str
    path: int | None
    """Number of the column that names the videos; None in lists of Kinetics, which name them otherwise."""
    header: bool


def _decoded(data: bytes, errors: str = "strict") -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors)
    if b"\0" in data[:2]:
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be", errors)
    return data.decode("utf-8-sig", errors)


def _without_comments(text: str, is_there: IsThere) -> list[str]:
    """The lines, in whose number comments stay as empty ones."""
    return ["\n" if _is_comment(line, is_there) else line for line in io.StringIO(text, newline="")]


def _is_comment(line: str, is_there: IsThere) -> bool:
    """Also a line by which a spreadsheet tells its delimiter."""
    if line.lstrip().startswith("#"):
        return not any(is_there(cells[0]) for delimiter in DELIMITERS for _, cells in _rows([line], delimiter)[0])
    return re.fullmatch(r"sep=.\s*", line) is not None


def _rows(given: Iterable[str], delimiter: str) -> tuple[list[_Row], str]:
    """The lines that are not blank, cut into cells, and what is wrong with the line at which this ended too early."""
    if delimiter == " ":
        return [(number, _by_blanks(line.strip())) for number, line in enumerate(given, 1) if line.strip()], ""
    rows: list[_Row] = []
    # Strict, or a quote that is never closed would take all the lines behind it into its cell.
    reader = csv.reader(given, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        return rows, f"line {reader.line_num}: is not valid CSV ({error})"
    return rows, ""


def _by_blanks(line: str) -> list[str]:
    """A path may hold blanks: it ends where a suffix of videos does."""
    match = _VIDEO.fullmatch(line)
    return [match["path"], *(match["rest"] or "").split()] if match else line.split()


def _form(sample: Sequence[str], is_there: IsThere) -> _Form | None:
    """How a list is written, by its first lines; None if they are none of a list."""
    cut = {delimiter: rows for delimiter in DELIMITERS if (rows := _rows(sample, delimiter)[0])}
    headers = {delimiter: [cell.lower() for cell in rows[0][1]] for delimiter, rows in cut.items() if delimiter != " "}
    for delimiter, header in headers.items():
        if "path" in header:
            return _Form(delimiter, header.index("path"), True)
        if set(header) >= KINETICS_COLUMNS:
            return _Form(delimiter, None, True)

    def named(rows: Sequence[_Row], column: int, judge: IsThere) -> int:
        return sum(len(cells) > column and judge(cells[column]) for _, cells in rows)

    # Where at least half of the lines name a video in the same column; best such as are there.
    forms = []
    for delimiter, rows in cut.items():
        width = max(len(cells) for _, cells in rows)
        column = max(range(width), key=lambda column: named(rows, column, _is_video))
        count = named(rows, column, _is_video)
        if count and 2 * count >= len(rows):
            there = named(rows, column, lambda cell: _is_video(cell) and is_there(cell))
            usual, alike = Counter(len(cells) for _, cells in rows).most_common(1)[0]
            first = rows[0][1]
            header = len(first) > column and not _is_video(first[column])
            forms.append((there, count, alike, usual, _Form(delimiter, column, header)))
    if forms:
        return max(forms, key=lambda form: form[:-1])[-1]
    for delimiter, header in headers.items():
        rows = cut[delimiter][1:]
        for column in [header.index(name) for name in PATH_COLUMNS if name in header]:
            if 2 * named(rows, column, is_there) > len(rows):  # without their suffixes
                return _Form(delimiter, column, True)
    return None


def _mentions(file: Path, sample: Sequence[str], is_there: IsThere, *, everywhere: bool) -> Unread | None:
    """everywhere: whether it has to be about half of the lines that name a video."""
    naming = [any(map(is_there, _MENTION.findall(line))) for line in sample if line.strip()]
    if not any(naming) or (everywhere and 2 * sum(naming) < len(naming)):
        return None
    return Unread(f"{file}: names videos, but not in a form that is read: {WAY_OUT}", damaged=False)


def _is_video(cell: str) -> bool:
    return cell.lower().endswith(tuple(f".{suffix}" for suffix in SUFFIXES))


def _with_header(file: Path, rows: Sequence[_Row], path: int | None) -> Table | Unread:
    (line, header), *rows = rows
    lower = [name.lower() for name in header]
    widths = Counter(len(cells) for _, cells in rows)
    if path is not None and lower[path] not in PATH_COLUMNS and widths[len(header)] == 0:
        return Unread(
            f"{file} line {line}: is no header of the columns below: remove it or put # before it", damaged=True
        )
    free = [k for k in range(len(header)) if k != path]
    label = [lower.index(name) for name in LABEL_COLUMNS if name in lower and lower.index(name) != path]
    split = [k for k in free if lower[k] == "split"] or [k for k in free if _tells_splits(rows, k)]
    taken = {"path": path, "label": next(iter(label), None), "split": next(iter(split), None)}
    columns = [name if name in KINETICS_COLUMNS else given for name, given in zip(lower, header, strict=True)]
    for name, column in taken.items():
        if column is not None:
            columns[column] = name
    names = [name for name in columns if name]
    if len(set(map(str.lower, names))) < len(names):
        return Unread(f"{file}: has two columns of one name ({', '.join(lower)})", damaged=True)
    others = {header[k]: name for name, k in taken.items() if k is not None and lower[k] != name}
    return Table(
        file, columns, rows, "; ".join(f"its column {given} is taken for the {n}" for given, n in others.items())
    )


def _without_header(file: Path, rows: Sequence[_Row], path: int, is_there: IsThere) -> Table | Unread:
    if not any(is_there(cell) for _, cells in rows for cell in cells[path : path + 1]):
        return Unread(f"{file}: names no video that is there, but for example {rows[0][1][0]}", damaged=False)
    if path != 0:
        return Unread(f"{file}: names videos behind something else, and has no header: {WAY_OUT}", damaged=False)
    widths = Counter(len(cells) for _, cells in rows)
    width, count = widths.most_common(1)[0]
    if 2 * count <= len(rows):
        return Unread(f"{file}: its lines have {min(widths)} to {max(widths)} columns: {WAY_OUT}", damaged=False)
    used = [k for k in range(1, width) if any(len(cells) > k and cells[k] for _, cells in rows)]
    splits = [k for k in used if _tells_splits(rows, k)]
    others = [k for k in used if k not in splits]
    whole = [k for k in others if all(re.fullmatch(r"-?\d+", cells[k]) for _, cells in rows if len(cells) > k)]
    names = {1: ["label"], 2: ["frames", "label"]}.get(len(others), [])
    if len(splits) > 1 or len(others) > 2 or (len(others) == 2 and others[0] not in whole):
        return Unread(f"{file}: has {width} columns and no header that says what they are: {WAY_OUT}", damaged=False)
    columns = [""] * width
    columns[0] = "path"
    for k, name in zip([*splits, *others], [*(["split"] * len(splits)), *names], strict=True):
        columns[k] = name
    told = ", ".join(name for name in columns if name)
    return Table(file, columns, rows, f"without a header, taken for a list of {told}")


def _tells_splits(rows: Sequence[_Row], column: int) -> bool:
    values = {cells[column].lower() for _, cells in rows if len(cells) > column} - {""}
    return bool(values) and values <= SPLITS.keys()
