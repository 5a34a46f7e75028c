"""Bytes of files, wherever they lie: on disk, or at an address that fsspec knows (https://, s3://, gs://, ...)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from cacl.errors import DataError

Location: TypeAlias = Path | str
"""A path on disk, or an address."""

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.2
"""Between the first two attempts at a remote read; each further pause is twice as long."""
SILENCE_SECONDS = 10.0
"""So long a remote read may wait for the first byte, and for each further one."""
LEAST_BYTES_PER_SECOND = 32 * 1024
"""Of a remote read, once it has begun: whoever sends less holds up the training without an end."""
FINAL = (FileNotFoundError, PermissionError)
"""Answers that will not change by asking again."""
FINAL_STATUS = (401, 403, 404, 410)
"""The same of HTTP."""

T = TypeVar("T")


def is_remote(root: str) -> bool:
    return "://" in root


def read(location: Location, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a file, in one read or one range request.

    Raises DataError naming the file if it does not hold them, or still cannot be read after several attempts.
    """
    data = _read_local(location, start, stop) if isinstance(location, Path) else _read_remote(location, start, stop)
    if len(data) > stop - start:
        raise DataError(
            f"{location}: the server gave {len(data)} bytes where {stop - start} from {start} on were asked for; it must "
            "support range requests"
        )
    if len(data) < stop - start:
        raise DataError(f"{location}: holds {len(data)} bytes from {start} on, where {stop - start} were written")
    return data


def download(address: str, folder: Path, version: str) -> Path:
    """A local copy of this version of a remote file, made if there is none yet."""
    filesystem, path = _filesystem(address)
    copy = folder / f"{hashlib.sha256(f'{address} {version}'.encode()).hexdigest()[:16]}{os.path.splitext(path)[1]}"
    if not copy.exists():
        temporary = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.touch()  # if it may not be written here, that is no fault of the address
            _retried(address, lambda: filesystem.get_file(path, str(temporary), callback=_pace()))
            os.replace(temporary, copy)
        except OSError as error:
            raise DataError(f"{address}: cannot be kept in {folder} ({error.strerror}); set data.cache") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return copy


def _read_local(path: Path, start: int, stop: int) -> bytes:
    try:
        # Opened for each read: that costs microseconds, and no descriptor is kept for a file of a million.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(file, stop - start, start)
        finally:
            os.close(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return data


def _read_remote(address: str, start: int, stop: int) -> bytes:
    filesystem, path = _filesystem(address)
    limit: dict[str, Any] = {}
    if _takes_timeouts(filesystem):
        limit["timeout"] = _most_seconds(stop - start)
    return _retried(address, lambda: filesystem.cat_file(path, start=start, end=stop, **limit))


def _most_seconds(size: int) -> float:
    """How long so many bytes may take."""
    return SILENCE_SECONDS + size / LEAST_BYTES_PER_SECOND


def _takes_timeouts(filesystem: Any) -> bool:
    """Web servers and object stores do; others (a disk, memory, SFTP) have time-outs of their own, or need none."""
    from fsspec.asyn import AsyncFileSystem

    return issubclass(type(filesystem), AsyncFileSystem)


def _pace() -> Any:
    """What ends a download that is too slow: fsspec calls it after each part, and the size is not known before."""
    from fsspec.callbacks import Callback

    begun = time.monotonic()

    def check(size: int | None, value: int, **_: object) -> None:
        if time.monotonic() - begun > _most_seconds(value):
            raise TimeoutError

    return Callback(hooks={"pace": check})


def _retried(address: str, call: Callable[[], T]) -> T:
    pause = FIRST_PAUSE_SECONDS
    for left in reversed(range(ATTEMPTS)):
        try:
            return call()
        except Exception as error:  # each filesystem has errors of its own
            if isinstance(error, FINAL) or getattr(error, "status", None) in FINAL_STATUS:
                raise DataError(f"{address}: is not there, or may not be read") from None
            if not left:
                reason = str(error) or type(error).__name__
                if isinstance(error, TimeoutError):
                    reason = f"silent for {SILENCE_SECONDS:g} s, or below {LEAST_BYTES_PER_SECOND} bytes a second"
                raise DataError(f"{address}: cannot be read, {ATTEMPTS} attempts failed ({reason})") from None
            time.sleep(pause)
            pause *= 2
    raise AssertionError


def _filesystem(address: str) -> tuple[Any, str]:
    """fsspec keeps one per protocol and server."""
    import fsspec

    options: dict[str, Any] = {}
    try:
        if address.startswith(("http://", "https://")):
            import aiohttp

            # Without one, aiohttp ends every download after five minutes.
            timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_SECONDS, sock_connect=SILENCE_SECONDS)
            options["client_kwargs"] = {"timeout": timeout}
        return fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        raise DataError(
            f"{address}: cannot be opened ({error}); web servers need pip install 'cacl[remote]', other stores theirs"
        ) from None
    except ValueError as error:
        raise DataError(f"{address}: cannot be opened ({error})") from None
