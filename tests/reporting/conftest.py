"""A terminal to look at what the console shows on one."""

import os
import select
import sys
from collections.abc import Iterator

import pytest


class Terminal:
    """A terminal of 200 columns for stderr."""

    def __init__(self) -> None:
        self.read_end, write_end = os.openpty()
        self.stream = os.fdopen(write_end, "w")

    def shown(self) -> str:
        """Everything that was written until rich showed the cursor again, as it does when a console is closed."""
        text = ""
        while "\x1b[?25h" not in text:
            assert select.select([self.read_end], [], [], 10)[0], f"nothing more came after {text!r}"
            text += os.read(self.read_end, 10_000).decode()
        return text

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes it stderr. Tests call this themselves, since pytest sets stderr anew between fixtures and tests."""
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "stderr", self.stream)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.stream.close()
    os.close(made.read_end)
