"""The harness: the order in which contenders are checked and measured, and what becomes of those that are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from cacl.benchmarks.harness.comparison import Contender, ContenderRun, Step, compare


class LoggedRun(ContenderRun[float]):
    """Logs what is done with it. Its measurements are given."""

    def __init__(
        self, log: list[str], name: str, *values: float, fault: str = "", unavailable_reason: str = ""
    ) -> None:
        super().__init__(
            Contender(name=name, description="", prepare=lambda: None, unavailable_reason=unavailable_reason)
        )
        self.log, self.given, self.fault = log, list(values), fault

    def check(self) -> str:
        self.log.append(f"check {self.contender.name}")
        return self.fault

    def warm_up(self) -> None:
        self.log.append(f"warm up {self.contender.name}")

    def measure(self) -> float:
        self.log.append(f"measure {self.contender.name}")
        return self.given.pop(0)

    @property
    def values(self) -> list[float]:
        return self.measurements

    def describe_error(self, error: Exception) -> str:
        return f"{type(error).__name__}, {error}"

    def release(self) -> None:
        self.log.append(f"release {self.contender.name}")


def test_contenders_are_checked_then_warmed_up_then_measured_in_turn() -> None:
    log: list[str] = []
    compare([LoggedRun(log, "a", 1, 2), LoggedRun(log, "b", 3, 4)], repeats=2)
    assert log == [
        *("check a", "check b"),
        *("warm up a", "warm up b"),
        *("measure a", "measure b"),
        *("measure a", "measure b"),
        *("release a", "release b"),
    ]


def test_every_step_is_told_before_it_is_done() -> None:
    log: list[Any] = []
    compare([LoggedRun(log, "a", 1), LoggedRun(log, "b", 2)], 1, log.append)
    assert log[:-2] == [
        *(Step("check", "a", 0, 6), "check a", Step("check", "b", 1, 6), "check b"),
        *(Step("warm-up", "a", 2, 6), "warm up a", Step("warm-up", "b", 3, 6), "warm up b"),
        *(Step("repeat 1 of 1", "a", 4, 6), "measure a", Step("repeat 1 of 1", "b", 5, 6), "measure b"),
    ]


def test_nothing_more_is_done_with_a_contender_that_is_left_out() -> None:
    log: list[str] = []
    missing = LoggedRun(log, "missing", unavailable_reason="it is not installed")
    wrong = LoggedRun(log, "wrong", fault="0.2 away from the truth")
    tired = LoggedRun(log, "tired", 1)  # Its second measurement raises IndexError.
    compare([missing, wrong, tired], repeats=3)
    assert missing.reason == "skipped: it is not installed"
    assert wrong.reason == "refused: 0.2 away from the truth"
    assert tired.reason == "fails: IndexError, pop from empty list"
    done = ["check wrong", "release wrong", "check tired", "warm up tired"]
    done += ["measure tired", "measure tired", "release tired"]
    assert log == [*done, "release missing", "release wrong", "release tired"]


def test_the_ratio_is_the_median_of_the_ratios_within_each_repeat() -> None:
    slow, fast = LoggedRun([], "slow", 100, 10, 90), LoggedRun([], "fast", 50, 5.5, 40)
    compare([slow, fast], repeats=3)
    assert slow.ratio_to(slow) == 1
    assert fast.ratio_to(slow) == 0.5
    assert slow.ratio_to(fast) == pytest.approx(2)


@pytest.mark.parametrize("left_out", ["a", "b"])
def test_without_one_of_the_two_there_is_no_ratio(left_out: str) -> None:
    a, b = (LoggedRun([], name, 1, fault="wrong" if name == left_out else "") for name in ("a", "b"))
    compare([a, b], repeats=1)
    assert a.ratio_to(b) is None
