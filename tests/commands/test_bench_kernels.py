"""`cacl bench-kernels`: what it measures, what it refuses to print, and what it says to wrong input."""

import json
import platform
from functools import partial
from pathlib import Path
from statistics import median

import pytest
import torch
from PIL import Image

from cacl.benchmarks.kernels import command
from cacl.benchmarks.kernels.command import bench_kernels
from cacl.benchmarks.kernels.run import BASELINE, COMPILED, OFFICIAL, KernelContender
from tests.benchmarks.kernels.small import CPU, breaks, contender, problem_of, quick_measurements, tiny_problems
from tests.commands.finished import Run
from tests.launch import ROOT


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_measurements(monkeypatch)


CONTENDERS = {
    "contrast": ["eager MoCo", "lean eager", "torch.compile", "flash attention"],
    "symmetric": ["eager CLIP", "torch.compile"],
    "edit-distance": [OFFICIAL, "rapidfuzz, 1 worker", "rapidfuzz, all cores", "torch.compile"],
    "augment": ["DALI", "torchvision"],
}
OF_PACKAGES = {OFFICIAL, "rapidfuzz, 1 worker", "rapidfuzz, all cores", "DALI"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "bench_kernels", partial(bench_kernels, list_problems=tiny_problems))


@pytest.mark.usefixtures("small")
def test_every_way_of_every_operation(cacl: Run, tmp_path: Path) -> None:
    """But torch.compile, which takes longer than all others together."""
    out = tmp_path / "new" / "folder"
    done = cacl("bench-kernels", "--repeats", 2, "--device", "cpu", "--no-compile", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "bench_kernels.json").read_text()) == result

    assert [problem["operation"] for problem in result["problems"]] == [
        problem.operation for problem in tiny_problems(CPU)
    ]
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
    settings = [problem.setting for problem in tiny_problems(CPU) if problem.operation in ("edit-distance", "augment")]
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


@pytest.mark.parametrize("wrong", [contender(BASELINE, lambda: 0.0), contender(BASELINE, breaks)])
def test_ours_must_be_right(cacl: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: KernelContender) -> None:
    of_device = partial(bench_kernels, list_problems=lambda _: [problem_of(wrong, contender("another", lambda: 1.0))])
    monkeypatch.setattr(command, "bench_kernels", of_device)
    done = cacl("bench-kernels", "--repeats", 1, "--device", "cpu", "--out", tmp_path, "--json")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"cacl: contrast, one: {BASELINE} ")
    _, another = json.loads(done.stdout)["problems"][0]["rows"]
    assert another["ratio"] is None
