"""Signals that ask a run to stop; test_trainer.py has what the run makes of them."""

from __future__ import annotations

import signal

import pytest

from cacl.training.stop_signals import StopSignals

STOPPING = (signal.SIGINT, signal.SIGTERM)


def test_the_highest_signal_is_remembered() -> None:
    with StopSignals() as signals:
        assert signals.received == 0
        for number, highest in ((signal.SIGINT, 2), (signal.SIGTERM, 15), (signal.SIGINT, 15)):
            signal.raise_signal(number)
            assert signals.received == highest


def fail_while_open(before: list[object]) -> None:
    with StopSignals():
        assert all(signal.getsignal(number) != handler for number, handler in zip(STOPPING, before, strict=True))
        raise ZeroDivisionError


def test_handlers_are_as_before_also_after_an_error() -> None:
    before: list[object] = [signal.getsignal(number) for number in STOPPING]
    with pytest.raises(ZeroDivisionError):
        fail_while_open(before)
    assert [signal.getsignal(number) for number in STOPPING] == before
