"""The bytes of files, on disk or at a URL that fsspec knows (https://, s3://, gs://, ...)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from cacl.errors import DataError
from cacl.files import atomic_write

Location: TypeAlias = Path | str
"""A path on disk, or a URL."""

MAX_ATTEMPTS = 5
FIRST_BACKOFF_SECONDS = 0.2
"""The pause between the first two attempts at a remote read. Each further pause is twice as long."""
IDLE_TIMEOUT_SECONDS = 10.0
"""How long a remote read may wait for the first byte, and for each further one."""
MIN_BYTES_PER_SECOND = 32 * 1024
"""The least speed of a remote read once it has begun: whoever sends less holds up the training without an end."""
PERMANENT_ERRORS = (FileNotFoundError, PermissionError)
"""Errors that asking again will not change."""
PERMANENT_HTTP_STATUSES = (401, 403, 404, 410)
"""HTTP statuses that asking again will not change."""

ResultT = TypeVar("ResultT")


def is_remote(root: str) -> bool:
    """Returns whether this is a URL."""
    return "://" in root


def read(location: Location, start: int, stop: int) -> bytes:
    """Reads the bytes [start, stop) of a file, in one read or one range request.

    Args:
        location: The file.
        start: The offset of the first byte.
        stop: The offset behind the last byte.

    Returns:
        All these bytes.

    Raises:
        DataError: The file does not hold them, or still cannot be read after several attempts. The message names it.
    """
    data = _read_local(location, start, stop) if isinstance(location, Path) else _read_remote(location, start, stop)
    if len(data) > stop - start:
        raise DataError(
            f"{location}: the server gave {len(data)} bytes where {stop - start} from {start} on were asked for; it "
            "must support range requests"
        )
    if len(data) < stop - start:
        raise DataError(f"{location}: holds {len(data)} bytes from {start} on, where {stop - start} were written")
    return data


def download(url: str, folder: Path, version: str) -> Path:
    """Returns a local copy of a remote file, which is made if there is none yet.

    Args:
        url: The remote file.
        folder: The folder of local copies; it is made if it does not exist.
        version: What tells this version of the file from others. Each has a copy of its own.

    Returns:
        The copy. It appears whole or not at all.

    Raises:
        DataError: The file cannot be read, or the copy cannot be written. The message names the URL.
    """
    filesystem, path = _open_filesystem(url)
    copy = folder / f"{hashlib.sha256(f'{url} {version}'.encode()).hexdigest()[:16]}{os.path.splitext(path)[1]}"
    if not copy.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(copy, concurrent=True) as temporary:
                temporary.touch()  # If it may not be written here, that is no fault of the URL.
                _with_retries(url, lambda: filesystem.get_file(path, str(temporary), callback=_speed_limit()))
        except OSError as error:
            raise DataError(f"{url}: cannot be kept in {folder} ({error.strerror}); set data.cache") from None
    return copy


def _read_local(path: Path, start: int, stop: int) -> bytes:
    try:
        # The file is opened for each read. That costs microseconds, and no descriptors are kept for a million files.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(file, stop - start, start)
        finally:
            os.close(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return data


def _read_remote(url: str, start: int, stop: int) -> bytes:
    filesystem, path = _open_filesystem(url)
    limit: dict[str, Any] = {}
    if _takes_timeouts(filesystem):
        limit["timeout"] = _max_seconds(stop - start)
    return _with_retries(url, lambda: filesystem.cat_file(path, start=start, end=stop, **limit))


def _max_seconds(size: int) -> float:
    """Returns how many seconds a read of `size` bytes may take."""
    return IDLE_TIMEOUT_SECONDS + size / MIN_BYTES_PER_SECOND


def _takes_timeouts(filesystem: Any) -> bool:
    """Returns whether reads take a timeout.

    Those of web servers and object stores do. Others (a disk, memory, SFTP) have timeouts of their own, or need none.
    """
    from fsspec.asyn import AsyncFileSystem

    return issubclass(type(filesystem), AsyncFileSystem)


def _speed_limit() -> Any:
    """Returns a callback that ends a download that is too slow.

    fsspec calls it after each part with the bytes so far; the size of the whole is not known before.
    """
    from fsspec.callbacks import Callback

    begun = time.monotonic()

    def check(size: int | None, value: int, **_: object) -> None:
        if time.monotonic() - begun > _max_seconds(value):
            raise TimeoutError

    return Callback(hooks={"speed": check})


def _with_retries(url: str, call: Callable[[], ResultT]) -> ResultT:
    pause = FIRST_BACKOFF_SECONDS
    for remaining in reversed(range(MAX_ATTEMPTS)):
        try:
            return call()
        except Exception as error:  # Each filesystem has errors of its own.
            if isinstance(error, PERMANENT_ERRORS) or getattr(error, "status", None) in PERMANENT_HTTP_STATUSES:
                raise DataError(f"{url}: is not there, or may not be read") from None
            if not remaining:
                reason = str(error) or type(error).__name__
                if isinstance(error, TimeoutError):
                    reason = f"silent for {IDLE_TIMEOUT_SECONDS:g} s, or below {MIN_BYTES_PER_SECOND} bytes a second"
                raise DataError(f"{url}: cannot be read, {MAX_ATTEMPTS} attempts failed ({reason})") from None
            time.sleep(pause)
            pause *= 2
    raise AssertionError


def _open_filesystem(url: str) -> tuple[Any, str]:
    """Returns the filesystem of a URL, of which fsspec keeps one per protocol and server, and the path within it."""
    import fsspec

    options: dict[str, Any] = {}
    try:
        if url.startswith(("http://", "https://")):
            import aiohttp

            # Without a timeout of ours, aiohttp ends every download after five minutes.
            timeout = aiohttp.ClientTimeout(
                total=None, sock_read=IDLE_TIMEOUT_SECONDS, sock_connect=IDLE_TIMEOUT_SECONDS
            )
            options["client_kwargs"] = {"timeout": timeout}
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise DataError(
            f"{url}: cannot be opened ({error}); web servers need pip install 'cacl[remote]', other stores theirs"
        ) from None
    except ValueError as error:
        raise DataError(f"{url}: cannot be opened ({error})") from None
