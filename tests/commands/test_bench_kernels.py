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
from cacl.benchmarks.kernels import command, output
from cacl.benchmarks.kernels import edit_distance_problem as edit_distance
from cacl.benchmarks.kernels.augment_problem import augment_problem
from cacl.benchmarks.kernels.command import OPERATIONS, KernelBenchmark, bench_kernels
from cacl.benchmarks.kernels.contrast_problems import contrast_problem, symmetric_problem
from cacl.benchmarks.kernels.edit_distance_problem import edit_distance_problem, wagner_fischer
from cacl.benchmarks.kernels.launches import LAUNCHES
from cacl.benchmarks.kernels.problems import problems
from cacl.benchmarks.kernels.run import BASELINE, COMPILED, OFFICIAL, KernelContender, Problem, RooflineWork, Task
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


CONTENDERS = {
    "contrast": ["eager MoCo", "lean eager", "torch.compile", "flash attention"],
    "symmetric": ["eager CLIP", "torch.compile"],
    "edit-distance": [OFFICIAL, "rapidfuzz, 1 worker", "rapidfuzz, all cores", "torch.compile"],
    "augment": ["DALI", "torchvision"],
}
OF_PACKAGES = {OFFICIAL, "rapidfuzz, 1 worker", "rapidfuzz, all cores", "DALI"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "bench_kernels", partial(bench_kernels, list_problems=tiny))


@pytest.mark.usefixtures("small")
def test_every_way_of_every_operation(cacl: Run, tmp_path: Path) -> None:
    """But torch.compile, which takes longer than all others together."""
    out = tmp_path / "new" / "folder"
    done = cacl("bench-kernels", "--repeats", 2, "--device", "cpu", "--no-compile", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "bench_kernels.json").read_text()) == result

    assert [problem["operation"] for problem in result["problems"]] == [problem.operation for problem in tiny(CPU)]
    for problem in result["problems"]:
        assert problem["roofline_seconds"] > 0
        assert problem["roofline"]
        assert problem["error_unit"]
        ours, *others = problem["rows"]
        assert ours["contender"] == BASELINE
        assert ours["ratio"] == 1
        contenders = [row["contender"] for row in others if row["contender"] != "cacl, always the kernel"]
        assert contenders == [name for name in CONTENDERS[problem["operation"]] if name != COMPILED]
        for row in problem["rows"]:
            if row["contender"] in OF_PACKAGES and not row["stats"]:
                assert row["reason"].startswith("skipped: ")
                continue
            assert row["reason"] == "", row
            assert row["limits"].keys() <= row["errors"].keys()
            assert all(row["errors"][name] <= limit for name, limit in row["limits"].items())
            stats = row["stats"]
            each, spread = stats["each_seconds"], stats["seconds"]
            assert len(each) == 2
            assert 0 < min(each) == spread["min"] <= spread["median"] == pytest.approx(median(each))
            assert max(each) == spread["max"]
            of_each = zip(each, ours["stats"]["each_seconds"], strict=True)
            assert row["ratio"] == pytest.approx(median(seconds / base for seconds, base in of_each))
            assert stats["roofline_share"] == pytest.approx(problem["roofline_seconds"] / spread["median"])
            assert stats["calls"] >= 1
            assert stats["memory_bytes"] is None or row["contender"] != "DALI"

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
    (compiled,) = (each for each in task.contenders if each.name == COMPILED)
    errors = task.errors(compiled.prepare()())
    assert compiled.limits.keys() <= errors.keys()
    assert all(errors[name] <= limit for name, limit in compiled.limits.items()), errors


def test_what_there_is_so_far_is_told_after_every_problem() -> None:
    told: list[int] = []
    with Console(enabled=False) as console:
        result = bench_kernels(
            ["augment"],
            repeats=1,
            device="cpu",
            console=console,
            list_problems=tiny,
            so_far=lambda result: told.append(len(result.problems)),
        )
    assert told == [1, 2]
    assert result.left_out == ()
    assert result.resources


def test_nothing_is_begun_without_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(enabled=False) as console:
        result = bench_kernels(["augment"], repeats=1, device="cpu", console=console, list_problems=tiny, seconds=-1)
    assert (result.problems, result.resources) == ((), ())
    assert list(result.left_out) == [f"augment: {p.setting}" for p in tiny(CPU) if p.operation == "augment"]
    output.show(result)
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
    assert [problem["setting"] for problem in json.loads(report)["problems"]] == settings
    assert len(done.stderr.splitlines()) == len(settings) + 1
    for operation in ("edit-distance", "augment"):
        for name in (BASELINE, *CONTENDERS[operation]):
            assert (f"{operation}, {name}: " in done.stdout) == (name != COMPILED)
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


def contender(name: str, call: Callable[[], Any], **changes: Any) -> KernelContender:
    return KernelContender(name=name, description="", prepare=lambda: call, limits={"value": 0.1}, **changes)


def problem(*contenders: KernelContender) -> Problem:
    """Whose solution is 1."""
    work = RooflineWork(1, "nothing", timing.Roofline("none", 1, lambda: None))
    task = Task(contenders, lambda found: {"value": abs(found - 1)}, "the difference", work)
    return Problem("contrast", "one", lambda: task)


def measured(*contenders: KernelContender) -> KernelBenchmark:
    with Console(enabled=False) as console:
        return bench_kernels(
            [], repeats=1, device="cpu", console=console, list_problems=lambda _: [problem(*contenders)]
        )


def breaks() -> float:
    raise RuntimeError("out of luck\nin many lines")


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


@pytest.mark.parametrize("wrong", [contender(BASELINE, lambda: 0.0), contender(BASELINE, breaks)])
def test_ours_must_be_right(cacl: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: KernelContender) -> None:
    of_device = partial(bench_kernels, list_problems=lambda _: [problem(wrong, contender("another", lambda: 1.0))])
    monkeypatch.setattr(command, "bench_kernels", of_device)
    done = cacl("bench-kernels", "--repeats", 1, "--device", "cpu", "--out", tmp_path, "--json")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"cacl: contrast, one: {BASELINE} ")
    _, another = json.loads(done.stdout)["problems"][0]["rows"]
    assert another["ratio"] is None


def test_our_own_operations_are_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is off by little, found by the real check."""
    right = edit_distance.edit_distance_to_identity

    def off(order: Tensor) -> Tensor:
        distances = right(order)
        distances[0] += 1
        return distances

    monkeypatch.setattr(edit_distance, "edit_distance_to_identity", off)
    with Console(enabled=False) as console:
        result = bench_kernels(
            ["edit-distance"], repeats=1, device="cpu", console=console, compile=False, list_problems=tiny
        )
    with pytest.raises(CaclError, match="edit-distance, 50 orders of 9 frames: cacl refused: differing 1 away"):
        result.check()


# --- What stands in for what is missing


def test_without_rapidfuzz_the_recurrence_is_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_distance, "unavailable_reason", lambda module, package: f"{package} is not installed")
    with Console(enabled=False) as console:
        result = bench_kernels(
            ["edit-distance"], repeats=1, device="cpu", console=console, compile=False, list_problems=tiny
        )
    reasons = {row.contender: row.reason for row in result.problems[0].rows}
    assert reasons[BASELINE] == ""
    assert reasons[OFFICIAL] == "skipped: rapidfuzz is not installed"


def test_the_recurrence() -> None:
    order = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [3, 0, 1, 2], [3, 2, 1, 0]], dtype=torch.uint8)
    assert wagner_fischer(order).tolist() == [0, 2, 2, 4]


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
    assert timing.warm_up(clock.call, CPU) == 5
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
        (timing.multiply_roofline(CPU, torch.float32), 1),
        (timing.copy_roofline(CPU), 1),
        *((timing.integer_roofline(CPU, bits), torch.get_num_threads()) for bits in (8, 64)),  # a core each
    ],
    ids=lambda value: getattr(value, "description", ""),
)
def test_a_roofline_does_the_work_that_it_says(roofline: timing.Roofline, cores: int) -> None:
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
