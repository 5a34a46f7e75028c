"""The folder that a prepared set is written to: where each video lies in it, and what stands against writing there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from cacl.errors import DataError, UsageError, reason_of
from cacl.files import FileStamp
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME
from cacl.loaders.prepared.conversion_log import RejectedSource, SourceOutcome
from cacl.loaders.prepared.shard import Shard, find_shards

VIDEOS = "videos"
"""The folder of the prepared videos, within the target."""
ELSEWHERE = "_elsewhere"
"""The folder, within that, of videos whose path cannot be that of their source: it is outside the root, or too long."""
MAX_NAME_BYTES = 240
"""The longest file name of a source whose prepared video is named after it. That name is longer, and file systems take
255 bytes."""


class TargetError(DataError):
    """The target cannot be written, which is no fault of any one source."""


@contextlib.contextmanager
def target_errors(target: Path) -> Iterator[None]:
    """Turns errors of the system within the block into errors of the target.

    Args:
        target: The folder of the prepared set.

    Yields:
        Nothing.

    Raises:
        TargetError: The block raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"{target}: cannot be written ({reason_of(error)}); mend that, and the same command goes on from here, or "
            "name another folder"
        ) from None


def prepared_path(source_path: str) -> str:
    """Returns where the prepared video of a source lies, relative to the target.

    Args:
        source_path: The path of the source, relative to its root or absolute.
    """
    name = source_path.rpartition("/")[2]
    if source_path.startswith(("/", "../")) or len(os.fsencode(name)) > MAX_NAME_BYTES:
        return f"{VIDEOS}/{ELSEWHERE}/{hashlib.sha256(os.fsencode(source_path)).hexdigest()[:32]}.mp4"
    return f"{VIDEOS}/{source_path}.mp4"


def check_target(root: Path, target: Path, shard: Shard | None) -> None:
    """Refuses a target that does not go together with the folder of the sources, or holds something else.

    Args:
        root: The folder of the sources.
        target: The folder of the prepared set; it need not exist.
        shard: The shard that is to be made there, or None for the whole set.

    Raises:
        UsageError: The root is a prepared set itself, one folder lies within the other, or the target holds other
            files, or other shards, or a set that is not made in shards.
        TargetError: The target cannot be read.
    """
    if (root / INDEX_NAME).exists():
        raise UsageError(f"{root}: is a prepared set; name the videos that it was made from")
    real_root, real_target = root.resolve(), target.resolve()
    if real_root.is_relative_to(real_target) or real_target.is_relative_to(real_root):
        raise UsageError(f"{target}: lies within {root}, or around it; name a folder apart from the videos")
    with target_errors(target):
        there = {file.name for file in target.iterdir()} - {"lost+found"} if target.is_dir() else set()
    shards = find_shards(target)
    if there and CONVERSION_LOG_NAME not in there and not shards:
        raise UsageError(f"{target}: is not empty, and no prepared set; name a new or empty folder")
    if CONVERSION_LOG_NAME in there:
        if shard:
            raise UsageError(f"--shard {shard}: {target} is one set already; leave --shard out to go on with it")
    elif shards and shard is None:
        raise UsageError(
            f"{target}: is made in {shards[0].count} shards; give --shard I/{shards[0].count}, or name another folder"
        )
    elif shard and any(other.count != shard.count for other in shards):
        count = next(other.count for other in shards if other.count != shard.count)
        raise UsageError(
            f"--shard {shard}: {target} is made in {count} shards; give --shard I/{count}, or name another folder"
        )


def clean_up(target: Path, *, keeps_index: bool) -> None:
    """Removes what killed processes left, and an index that would speak of files that are replaced now.

    Args:
        target: The folder of the prepared set, where nobody else is at work.
        keeps_index: Whether the index stays, because no file is replaced.

    Raises:
        TargetError: The target cannot be written.
    """
    with target_errors(target):
        for leftover in (target / VIDEOS).rglob(".*.writing"):  # `atomic_write` names them so.
            if leftover.is_file():
                leftover.unlink()
        if not keeps_index:
            (target / INDEX_NAME).unlink(missing_ok=True)


def fault_of(root: Path, target: Path, outcome: SourceOutcome) -> str | None:
    """Returns what has happened to a source or to its prepared video since the source was dealt with.

    Args:
        root: The folder of the sources.
        target: The folder of the prepared set.
        outcome: What became of the source.

    Returns:
        The fault, which continues a sentence that begins with the path of the source; None if all is as it was.
    """
    if outcome.stamp is not None and outcome.stamp != stamp_of(root / outcome.path):
        return "has changed since it was converted"
    if isinstance(outcome, RejectedSource):
        return None
    prepared = stamp_of(target / prepared_path(outcome.path))
    if prepared is None or prepared.size != outcome.size_bytes:
        return "has a prepared video that is gone or not whole"
    return None


def stamp_of(file: Path) -> FileStamp | None:
    """Returns the stamp of a file, or None if it is not there or cannot be reached."""
    try:
        return FileStamp.of(file.stat())
    except OSError:
        return None
