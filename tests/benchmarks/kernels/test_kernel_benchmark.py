"""The kernel benchmark: contenders that are wrong, and what there is no time for."""

import pytest

from cacl.benchmarks.kernels import command, output
from cacl.benchmarks.kernels.command import KernelBenchmark, bench_kernels
from cacl.benchmarks.kernels.run import BASELINE, KernelContender
from cacl.reporting.console import Console
from tests.benchmarks.kernels.small import CPU, breaks, contender, problem_of, tiny_problems


def measured(*contenders: KernelContender) -> KernelBenchmark:
    with Console(enabled=False) as console:
        return bench_kernels(
            [], repeats=1, device="cpu", console=console, list_problems=lambda _: [problem_of(*contenders)]
        )


def test_a_way_that_is_wrong_gets_no_figure() -> None:
    calls: list[float] = []

    def breaks_later() -> float:
        calls.append(1)
        return 1 if len(calls) == 1 else breaks()

    result = measured(
        contender(BASELINE, lambda: 1.0),
        contender("far", lambda: 1.2),
        contender("nan", lambda: float("nan")),
        contender("broken", breaks),
        contender("tired", breaks_later),
        contender("missing", lambda: 1.0, unavailable_reason="it is not installed"),
    )
    ours, *others = result.problems[0].rows
    assert ours.stats
    assert ours.errors == {"value": 0}
    assert [row.stats for row in others] == [None] * 5
    assert [row.reason for row in others] == [
        "refused: value 0.2 away from the truth, 0.1 allowed",
        "refused: value nan away from the truth, 0.1 allowed",
        "fails: out of luck",
        "fails: out of luck",
        "skipped: it is not installed",
    ]
    result.check()


def test_results_so_far_are_told_after_every_problem() -> None:
    told: list[int] = []
    with Console(enabled=False) as console:
        result = bench_kernels(
            ["augment"],
            repeats=1,
            device="cpu",
            console=console,
            list_problems=tiny_problems,
            on_result=lambda result: told.append(len(result.problems)),
        )
    assert told == [1, 2]
    assert result.left_out == ()
    assert result.resources


def test_nothing_is_begun_without_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(enabled=False) as console:
        result = bench_kernels(
            ["augment"], repeats=1, device="cpu", console=console, list_problems=tiny_problems, seconds=-1
        )
    assert (result.problems, result.resources) == ((), ())
    assert list(result.left_out) == [f"augment: {p.setting}" for p in tiny_problems(CPU) if p.operation == "augment"]
    output.show(result)
    out = capsys.readouterr().out
    assert all(f"no time for {name}\n" in out for name in result.left_out)
    assert "no time left, and none was compiled ahead of time" in out


def test_in_the_interpreter_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (command, output):
        monkeypatch.setattr(module, "INTERPRETED", True)
    result = measured(contender(BASELINE, lambda: 1.0))
    assert result.resources == ()
    output.show(result)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "TRITON_INTERPRET=1" in line]
    assert "none was compiled" in line
