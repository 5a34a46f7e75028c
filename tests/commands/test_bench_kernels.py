"""`cacl bench-kernels`: what it measures, what it refuses to print, and what it says to wrong input."""

import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cacl.benchmarks.harness import timing
from cacl.benchmarks.harness.trial import COMPILED, OURS, Floor, Problem, Task, Way
from cacl.benchmarks.kernels import command
from cacl.benchmarks.kernels import problems as kernel_problems
from cacl.benchmarks.kernels.command import OPERATIONS, Result, bench_kernels
from cacl.benchmarks.kernels.contrast_problems import contrast_problem, symmetric_problem
from cacl.benchmarks.kernels.launches import LAUNCHES
from cacl.benchmarks.kernels.problems import augment_problem, edit_distance_problem, problems, wagner_fischer
from cacl.errors import CaclError
from cacl.reporting.console import Console
from tests.launch import ROOT

CPU = torch.device("cpu")

Finished = subprocess.CompletedProcess[str]
Run = Callable[..., Finished]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short measurements, and one kernel compiled ahead of time for one GPU."""
    monkeypatch.setattr(timing, "MEASUREMENT", 0.005)
    monkeypatch.setattr(command, "CAPABILITIES", (90,))
    monkeypatch.setattr(command, "LAUNCHES", {name: lambda: iter(()) for name in OPERATIONS} | AUGMENT)


AUGMENT = {"augment": LAUNCHES["augment"]}


def tiny(device: torch.device) -> Iterator[Problem]:
    yield contrast_problem(device, torch.float32, 70, 2, 300)
    yield contrast_problem(device, torch.bfloat16, 5, 1, 300, other_side=True)
    yield symmetric_problem(device, torch.float32, 60)
    yield edit_distance_problem(device, 50, 9)
    yield augment_problem(device, 2, 3, (20, 26), 18, 10)
    yield augment_problem(device, 2, 3, (20, 26), 10, 10)


WAYS = {
    "contrast": ["eager MoCo", "lean eager", "torch.compile", "flash attention"],
    "symmetric": ["eager CLIP", "torch.compile"],
    "edit-distance": ["authors' way", "rapidfuzz, 1 worker", "rapidfuzz, all cores", "torch.compile"],
    "augment": ["DALI", "torchvision"],
}
OF_PACKAGES = {"authors' way", "rapidfuzz, 1 worker", "rapidfuzz, all cores", "DALI"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "bench_kernels", partial(bench_kernels, of_device=tiny))


@pytest.mark.usefixtures("small")
def test_every_way_of_every_operation(cacl: Run, tmp_path: Path) -> None:
    """But torch.compile, which takes longer than all others together."""
    out = tmp_path / "new" / "folder"
    done = cacl("bench-kernels", "--repeats", 2, "--device", "cpu", "--no-compile", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "bench_kernels.json").read_text()) == result

    assert [block["operation"] for block in result["blocks"]] == [problem.operation for problem in tiny(CPU)]
    for block in result["blocks"]:
        assert block["floor_seconds"] > 0
        assert block["floor"]
        assert block["error_unit"]
        ours, *others = block["rows"]
        assert ours["way"] == OURS
        assert ours["figures"]["ratio"] == 1
        ways = [row["way"] for row in others if row["way"] != "cacl, always the kernel"]
        assert ways == [way for way in WAYS[block["operation"]] if way != COMPILED]
        for row in block["rows"]:
            if row["way"] in OF_PACKAGES and not row["figures"]:
                assert row["reason"].startswith("skipped: ")
                continue
            assert row["reason"] == "", row
            assert row["limits"].keys() <= row["errors"].keys()
            assert all(row["errors"][name] <= limit for name, limit in row["limits"].items())
            figures = row["figures"]
            each, spread = figures["each_seconds"], figures["seconds"]
            assert len(each) == 2
            assert 0 < min(each) == spread["min"] <= spread["median"] == pytest.approx(median(each))
            assert max(each) == spread["max"]
            of_each = zip(each, ours["figures"]["each_seconds"], strict=True)
            assert figures["ratio"] == pytest.approx(median(seconds / base for seconds, base in of_each))
            assert figures["floor_share"] == pytest.approx(block["floor_seconds"] / spread["median"])
            assert figures["calls"] >= 1
            assert figures["memory_bytes"] is None or row["way"] != "DALI"

    (used,) = result["resources"]
    assert (used["operation"], used["kernel"]) == ("augment", "augment_kernel")
    assert used["sm_90"]["registers"] > 0
    assert result["settings"].pop("load") >= 0
    assert result["settings"] == {"device": "cpu", "threads": torch.get_num_threads(), "repeats": 2}
    assert {"cpu", "cores", "python", "torch", "triton", "commit", "gpu", "cuda"} <= set(result["machine"])


@pytest.mark.parametrize("operation", ["contrast", "symmetric", "edit-distance"])
def test_torch_compile_is_right(operation: str) -> None:
    """It is checked like the others; the smallest problem of each operation."""
    tiniest = {
        "contrast": contrast_problem(CPU, torch.float32, 5, 1, 30),
        "symmetric": symmetric_problem(CPU, torch.float32, 6),
        "edit-distance": edit_distance_problem(CPU, 5, 4),
    }[operation]
    task = tiniest.make()
    (compiled,) = (way for way in task.ways if way.name == COMPILED)
    errors = task.errors(compiled.prepare()())
    assert compiled.limits.keys() <= errors.keys()
    assert all(errors[name] <= limit for name, limit in compiled.limits.items()), errors


def test_what_there_is_so_far_is_told_after_every_problem() -> None:
    told: list[int] = []
    with Console(enabled=False) as report:
        result = bench_kernels(
            ["augment"],
            repeats=1,
            device="cpu",
            report=report,
            of_device=tiny,
            so_far=lambda result: told.append(len(result.blocks)),
        )
    assert told == [1, 2]
    assert result.left_out == ()
    assert result.resources


def test_nothing_is_begun_without_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(enabled=False) as report:
        result = bench_kernels(["augment"], repeats=1, device="cpu", report=report, of_device=tiny, seconds=-1)
    assert (result.blocks, result.resources) == ((), ())
    assert list(result.left_out) == [f"augment: {p.setting}" for p in tiny(CPU) if p.operation == "augment"]
    command.show(result)
    out = capsys.readouterr().out
    assert all(f"no time for {name}\n" in out for name in result.left_out)
    assert "no time left, and none was compiled ahead of time" in out


@pytest.mark.usefixtures("small")
def test_the_report_names_no_folder_and_no_machine(cacl: Run, tmp_path: Path) -> None:
    done = cacl(
        *("bench-kernels", "edit-distance", "augment", "--no-compile"),
        *("--repeats", 1, "--device", "cpu", "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "bench_kernels.json").read_text()
    for text in (done.stdout, report):
        assert str(tmp_path) not in text
        assert str(ROOT) not in text
        assert platform.node() not in text
    with Image.open(tmp_path / "bench_kernels.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 1600
    settings = [problem.setting for problem in tiny(CPU) if problem.operation in ("edit-distance", "augment")]
    assert [block["setting"] for block in json.loads(report)["blocks"]] == settings
    assert len(done.stderr.splitlines()) == len(settings) + 1
    for operation in ("edit-distance", "augment"):
        for way in (OURS, *WAYS[operation]):
            assert (f"{operation}, {way}: " in done.stdout) == (way != COMPILED)
    assert "augment_kernel" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["contrasts"], "contrasts: no operation; there are contrast, symmetric, edit-distance, augment"),
        (["--repeats", "0"], "--repeats 0: give at least 1"),
        (["--device", "tpu"], "--device tpu: say auto, cpu or cuda"),
        (["--out", "{file}"], "--out {file}"),
    ],
)
def test_wrong_input_is_one_line_with_a_way_out(cacl: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    file = tmp_path / "file"
    file.touch()
    done = cacl("bench-kernels", *(argument.format(file=file) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cacl: {said.format(file=file)}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(cacl: Run) -> None:
    done = cacl("bench-kernels", "--device", "cuda")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cacl: --device cuda: no CUDA device is visible; --device auto takes what is there\n"


# --- Ways that are wrong


def way(name: str, call: Callable[[], Any], **changes: Any) -> Way:
    return Way(name=name, how="", prepare=lambda: call, limits={"value": 0.1}, **changes)


def problem(*ways: Way) -> Problem:
    """Whose solution is 1."""
    floor = Floor(1, "nothing", timing.Roofline("none", 1, lambda: None))
    task = Task(ways, lambda found: {"value": abs(found - 1)}, "the difference", floor)
    return Problem("contrast", "one", lambda: task)


def measured(*ways: Way) -> Result:
    with Console(enabled=False) as report:
        return bench_kernels([], repeats=1, device="cpu", report=report, of_device=lambda _: [problem(*ways)])


def breaks() -> float:
    raise RuntimeError("out of luck\nin many lines")


def test_a_way_that_is_wrong_gets_no_figure() -> None:
    calls: list[float] = []

    def breaks_later() -> float:
        calls.append(1)
        return 1 if len(calls) == 1 else breaks()

    result = measured(
        way(OURS, lambda: 1.0),
        way("far", lambda: 1.2),
        way("nan", lambda: float("nan")),
        way("broken", breaks),
        way("tired", breaks_later),
        way("missing", lambda: 1.0, unavailable_reason="it is not installed"),
    )
    ours, *others = result.blocks[0].rows
    assert ours.figures
    assert ours.errors == {"value": 0}
    assert [row.figures for row in others] == [None] * 5
    assert [row.reason for row in others] == [
        "refused: value 0.2 away from the truth, 0.1 allowed",
        "refused: value nan away from the truth, 0.1 allowed",
        "fails: out of luck",
        "fails: out of luck",
        "skipped: it is not installed",
    ]
    result.check()


@pytest.mark.parametrize("wrong", [way(OURS, lambda: 0.0), way(OURS, breaks)])
def test_ours_must_be_right(cacl: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: Way) -> None:
    of_device = partial(bench_kernels, of_device=lambda _: [problem(wrong, way("another", lambda: 1.0))])
    monkeypatch.setattr(command, "bench_kernels", of_device)
    done = cacl("bench-kernels", "--repeats", 1, "--device", "cpu", "--out", tmp_path, "--json")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"cacl: contrast, one: {OURS} ")
    _, another = json.loads(done.stdout)["blocks"][0]["rows"]
    assert another["figures"]["ratio"] is None


def test_our_own_operations_are_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is off by little, found by the real check."""
    right = kernel_problems.edit_distance_to_identity

    def off(order: Tensor) -> Tensor:
        distances = right(order)
        distances[0] += 1
        return distances

    monkeypatch.setattr(kernel_problems, "edit_distance_to_identity", off)
    with Console(enabled=False) as report:
        result = bench_kernels(["edit-distance"], repeats=1, device="cpu", report=report, compile=False, of_device=tiny)
    with pytest.raises(CaclError, match="edit-distance, 50 orders of 9 frames: cacl refused: differing 1 away"):
        result.check()


# --- What stands in for what is missing


def test_without_rapidfuzz_the_recurrence_is_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_problems, "unavailable_reason", lambda module, package: f"{package} is not installed")
    with Console(enabled=False) as report:
        result = bench_kernels(["edit-distance"], repeats=1, device="cpu", report=report, compile=False, of_device=tiny)
    reasons = {row.way: row.reason for row in result.blocks[0].rows}
    assert reasons[OURS] == ""
    assert reasons["authors' way"] == "skipped: rapidfuzz is not installed"


def test_the_recurrence() -> None:
    order = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [3, 0, 1, 2], [3, 2, 1, 0]], dtype=torch.uint8)
    assert wagner_fischer(order).tolist() == [0, 2, 2, 4]


def test_in_the_interpreter_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "INTERPRETED", True)
    result = measured(way(OURS, lambda: 1.0))
    assert result.resources == ()
    command.show(result)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "TRITON_INTERPRET=1" in line]
    assert "none was compiled" in line


# --- What it measures with, and what


@pytest.mark.parametrize("mebibytes", [16, 64])
def test_memory_is_seen(mebibytes: int) -> None:
    """Other threads of the process only ever add to it: the least of several times is that of the call."""
    seen = [timing.memory_of(lambda: torch.ones(mebibytes, 2**18), CPU) for _ in range(5)]
    if seen[0] is None:
        pytest.skip("this system does not tell")
    assert min(x for x in seen if x is not None) / 2**20 == pytest.approx(mebibytes, abs=3)


class Clock:
    """Stands in for time: one that a call takes, and no other."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def perf_counter(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self.seconds


def test_the_time_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.25)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "MEASUREMENT", 1.1)
    assert timing.calls_of(clock.call, CPU) == 5
    assert timing.seconds_of(clock.call, 5, CPU) == 0.25


class Work(TorchDispatchMode):
    """Counts what operations of torch do: multiplications and additions, bytes read and written, elements negated."""

    done = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first, *others = args
        if func is torch.ops.aten.mm.out:
            self.done += 2 * first.shape[0] * first.shape[1] * others[0].shape[1]
        elif func is torch.ops.aten.copy_.default:
            self.done += sum(x.numel() * x.itemsize for x in args[:2])
        elif func is torch.ops.aten.bitwise_not_.default:
            self.done += first.numel()
        else:
            raise AssertionError(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("roofline", "cores"),
    [
        (timing.multiplying(CPU, torch.float32), 1),
        (timing.copying(CPU), 1),
        *((timing.computing(CPU, bits), torch.get_num_threads()) for bits in (8, 64)),  # a core each
    ],
    ids=lambda value: getattr(value, "what", ""),
)
def test_a_yardstick_does_the_work_that_it_says(roofline: timing.Roofline, cores: int) -> None:
    with Work() as work:
        roofline.call()
    assert roofline.work == cores * work.done > 0


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_all_operations_are_there(device: str) -> None:
    found = list(problems(torch.device(device)))
    assert {problem.operation for problem in found} == set(OPERATIONS)
    assert len({(problem.operation, problem.setting) for problem in found}) == len(found)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_launches_name_every_argument(operation: str) -> None:
    launches: Sequence[Any] = list(LAUNCHES[operation]())
    assert launches
    for launch in launches:
        assert {parameter.name for parameter in launch.kernel.params} <= launch.arguments.keys()
