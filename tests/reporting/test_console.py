import logging

import pytest

from cacl.reporting.console import Console
from tests.reporting.conftest import Terminal

log = logging.getLogger("cacl.somewhere.below")
MESSAGE = "[bold]a[/bold] :smile: of 'b' is 1,000; " + "and so on " * 12 + "to the end"


def test_messages_are_one_plain_line_each_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Console():
        log.info(MESSAGE)
        log.warning("100 %")
        log.debug("details")
    assert capsys.readouterr() == ("", f"{MESSAGE}\n100 %\n")


def test_a_terminal_shows_the_same_messages(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.use(monkeypatch)
    with Console():
        log.info(MESSAGE)
    assert MESSAGE in terminal.shown()


def test_other_ranks_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(enabled=False):
        log.info("a message")
        log.warning("a warning, which Python prints by itself where there is no handler")
    assert capsys.readouterr() == ("", "")


def test_the_console_leaves_logging_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("cacl")
    before = (list(logger.handlers), logger.level)
    with Console():
        pass
    assert (logger.handlers, logger.level) == before
    log.info("nobody listens")
    assert capsys.readouterr().err == ""


def test_progress_shows_on_a_terminal_only(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.use(monkeypatch)
    with Console() as console:
        console.progress("scanning", 3, 7, "a.mp4")
    shown = terminal.shown()
    assert "scanning" in shown
    assert "3/7" in shown
    assert "a.mp4" in shown


def test_progress_is_not_written_to_files(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.progress("scanning", 3, 7, "a.mp4")
    assert capsys.readouterr() == ("", "")
