"""The messages that FFmpeg logs while a file is read: some damage is told there and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import av.logging

LogMessages: TypeAlias = Sequence[tuple[int, str, str]]
"""Level, name of the decoder or the container, and text of each message."""

_lock = threading.Lock()
_captures = 0
_settings_before: tuple[int | None, bool] = (None, True)


@contextmanager
def capture_errors() -> Iterator[LogMessages]:
    """Collects the errors that FFmpeg logs in this thread.

    The settings of the log are those of the whole process. They are changed when the first thread begins to collect,
    and restored when the last one ends.

    Yields:
        The messages so far, to which further ones are added.
    """
    global _captures, _settings_before
    with _lock:
        if not _captures:
            _settings_before = av.logging.get_level(), av.logging.get_skip_repeated()
            av.logging.set_level(av.logging.ERROR)
            av.logging.set_skip_repeated(False)  # Else a message may come when the next file is open.
        _captures += 1
    try:
        with av.logging.Capture(local=True) as messages:
            yield messages
    finally:
        with _lock:
            _captures -= 1
            if not _captures:
                level, skip_repeated = _settings_before
                av.logging.set_level(level)
                av.logging.set_skip_repeated(skip_repeated)
