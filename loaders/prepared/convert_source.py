"""From one source to its prepared video, or to the reason why there is none. It runs in a process of its own."""

from __future__ import annotations

import stat
import zlib
from dataclasses import replace
from pathlib import Path

from cacl.clips import VideoRecord
from cacl.errors import DataError
from cacl.files import FileStamp, atomic_write
from cacl.loaders.catalog.quirks import find_quirks
from cacl.loaders.decode.probe import probe
from cacl.loaders.prepared.conversion_log import ConvertedSource, RejectedSource, SourceOutcome
from cacl.loaders.prepared.target import TargetError, prepared_path, stamp_of, target_errors
from cacl.loaders.prepared.transcode import TranscodeResult, TranscodeSettings, transcode


class _SourceChangedError(Exception):
    """The source is another file than when it was opened."""


def convert_source(root: Path, target: Path, settings: TranscodeSettings, path: str) -> SourceOutcome:
    """Makes the prepared video of one source, which appears in the target whole or not at all.

    Args:
        root: The folder of the sources.
        target: The folder of the prepared set.
        settings: What the source is converted with.
        path: The path of the source.

    Returns:
        The converted source, or the rejected one with what is wrong with it.

    Raises:
        TargetError: The target cannot be written.
    """
    source, file = root / path, target / prepared_path(path)
    stamp = None
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            return RejectedSource(path=path, stamp=None, reason="is not a regular file")
        stamp = FileStamp.of(status)
        video = probe(source, seekable=False)  # Without seek points: the source is read from its start to its end.
        with target_errors(target):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                result = transcode(source, video, temporary, settings)
                if stamp_of(source) != stamp:
                    raise _SourceChangedError
        return _converted(path, stamp, video, result)
    except TargetError:
        raise
    except _SourceChangedError:
        return RejectedSource(path=path, stamp=None, reason="changed while it was being read")
    except DataError as error:
        if stamp_of(source) != stamp:
            return RejectedSource(path=path, stamp=None, reason="changed while it was being read")
        # No permission, no file handle left, a failing network: the file may be in order.
        is_passing = isinstance(error.__context__, OSError)
        return RejectedSource(path=path, stamp=None if is_passing else stamp, reason=str(error))
    except OSError as error:
        return RejectedSource(path=path, stamp=None, reason=f"cannot be read ({error.strerror})")


def _converted(path: str, stamp: FileStamp, source: VideoRecord, result: TranscodeResult) -> ConvertedSource:
    fragments = result.video.fragments
    assert fragments is not None
    return ConvertedSource(
        path=path,
        stamp=stamp,
        content_hash=source.content_hash,
        copied=result.copied,
        video=replace(result.video, fragments=fragments._replace(init_segment=b"")),
        init_checksum=zlib.crc32(fragments.init_segment),
        quirks=find_quirks(source),
    )
