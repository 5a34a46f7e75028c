"""`cacl bench-loader`: what it measures, what it refuses to print, and what it says to wrong input."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from PIL import Image

from cacl.benchmarks.loader.command import LoaderBenchmark, bench_loader
from cacl.benchmarks.loader.contenders import BASELINE, OFFICIAL
from cacl.benchmarks.loader.run import LoaderContender
from cacl.clips import ClipBatch, ClipPlan
from cacl.config import Config, load
from cacl.errors import CaclError
from cacl.loaders.backends.select import Backend, build_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.reporting.console import Console
from tests.launch import ROOT

FRAMES = 24
SMALL = ["clip.frames=4", "clip.stride=2", "clip.size=32", "train.batch_size=2", "loader.threads=2"]
SET = [part for setting in SMALL for part in ("--set", setting)]
RIVALS = ["PyAV + DataLoader", "TorchCodec + DataLoader", "decord2 + DataLoader", "PyAV + ColorJitter"]
PARTS = ["cpu, decode only", "cpu, planes only"]
ON_BOTH = [BASELINE, *PARTS, "cacl dali", *RIVALS]

Finished = subprocess.CompletedProcess[str]
Run = Callable[..., Finished]


@pytest.fixture(scope="session")
def raw(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos; in the second one, as in UCF101, no seek can be trusted."""
    root = tmp_path_factory.mktemp("raw")
    make_video(root / "a.mp4", frames=FRAMES, gop=8, bframes=2)
    make_video(root / "b/b.avi", frames=FRAMES, gop=8, codec="mpeg4", bframes=2)
    make_video(root / "b/c.mp4", frames=FRAMES, gop=8)
    return root


@pytest.fixture(scope="session")
def prepared(raw: Path, process: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sets") / "prepared"
    done = process("data", "prepare", raw, target, "--gop", 8)
    assert done.returncode == 0, done.stderr
    return target


def test_every_loader_on_raw_and_on_prepared_videos(cacl: Run, raw: Path, prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = cacl("bench-loader", raw, "--prepared", prepared, "--clips", 7, "--repeats", 2, "--out", out, "--json", *SET)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "bench_loader.json").read_text()) == result

    rows = {(row["contender"], row["files"]): row for row in result["rows"]}
    both = [(loader, files) for loader in ON_BOTH for files in ("raw", "prepared")]
    assert list(rows) == [*both, (OFFICIAL, "raw")]
    for (loader, _), row in rows.items():
        if loader in ("cacl dali", "TorchCodec + DataLoader", "decord2 + DataLoader") and not row["stats"]:
            assert row["reason"].startswith(("skipped: ", "refused: "))
            continue
        assert row["reason"] == ""
        assert row["difference"] is None if loader in PARTS else row["difference"] <= row["tolerance"]
        stats = row["stats"]
        each, spread = stats["each_clips_per_second"], stats["clips_per_second"]
        assert len(each) == 2
        assert 0 < min(each) == spread["min"] <= spread["median"] == pytest.approx(np.mean(each))
        assert max(each) == spread["max"]
        assert stats["returned_frames_per_second"] == pytest.approx(4 * spread["median"])
        assert stats["dropped_clips"] == 0
        assert 0 < stats["wait_ms_p50"] <= stats["wait_ms_p99"]
        assert stats["first_batch_seconds"] > 0

    cpu, file = rows[BASELINE, "prepared"], rows[OFFICIAL, "raw"]
    assert cpu["ratio"] == 1
    of_each = zip(*(row["stats"]["each_clips_per_second"] for row in (file, cpu)), strict=True)
    assert file["ratio"] == pytest.approx(np.median([speed / base for speed, base in of_each]))
    assert file["stats"]["decoded_frames_per_second"] == pytest.approx(FRAMES * _speed(file))
    # A clip spans seven frames, and begins at one of the eight of a group.
    assert 7 <= cpu["stats"]["decoded_frames_per_second"] / _speed(cpu) <= 14

    assert result["settings"] | {"batch_size": 2, "clips": 6, "repeats": 2, "threads": 2} == result["settings"]
    assert result["stages"]["raw"]["read"] is None
    # The other two are differences of timings, which for clips as small as these may come out on either side of 0.
    of_prepared = result["stages"]["prepared"]
    assert of_prepared["read"] > 0
    assert sum(of_prepared.values()) > 0
    files = result["files"]["prepared"]
    assert files["codecs"] == {"h264": 3}
    assert files["bytes"] == sum(file.stat().st_size for file in prepared.rglob("*.mp4"))
    assert files["frames_between_seek_points"] == 8
    assert {"cpu", "cores", "python", "torch", "torchvision", "av", "commit"} <= set(result["machine"])


def _speed(row: dict) -> float:
    return row["stats"]["clips_per_second"]["median"]


def test_the_report_names_no_folder_and_no_machine(cacl: Run, raw: Path, tmp_path: Path) -> None:
    done = cacl("bench-loader", raw, "--clips", 2, "--repeats", 1, "--out", tmp_path, *SET)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "bench_loader.json").read_text()
    for text in (done.stdout, report):
        assert str(raw.parent) not in text
        assert str(ROOT) not in text
        assert platform.node() not in text
    with Image.open(tmp_path / "bench_loader.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 1600
    assert {row["files"] for row in json.loads(report)["rows"]} == {"raw"}
    for loader in (*ON_BOTH, OFFICIAL):
        assert f"{loader}: " in done.stdout
    assert "0 clips dropped" in done.stdout
    assert done.stderr.splitlines() == ["warm-up", "repeat 1 of 1"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{tmp}/none"], 1, "{tmp}/none"),
        (["{tmp}"], 1, "{tmp}"),
        (["{raw}", "--clips", "1"], 2, "--clips 1: a batch is 2"),
        (["{raw}", "--repeats", "0"], 2, "--repeats 0"),
        (["{raw}", "--prepared", "{raw}"], 2, "--prepared {raw}: does not hold the videos of {raw}"),
        (["{raw}/b", "--prepared", "{prepared}"], 2, "cacl data prepare {raw}/b {prepared}"),
        (["{raw}", "--out", "{raw}/a.mp4"], 2, "--out {raw}/a.mp4"),
        (["{raw}", "--set", "loader.thread=1"], 2, "loader.threads"),
    ],
)
def test_wrong_input_is_one_line_with_a_way_out(
    cacl: Run, raw: Path, prepared: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    def filled(text: str) -> str:
        return text.format(tmp=tmp_path, raw=raw, prepared=prepared)

    done = cacl("bench-loader", *map(filled, arguments), *SET)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cacl: ")
    assert filled(said) in line


# --- Contenders that are wrong


class _Bent:
    """The cpu backend with something wrong about its plans or its batches."""

    def __init__(
        self,
        catalog: Catalog,
        config: Config,
        plan: Callable[[ClipPlan], ClipPlan] = lambda plan: plan,
        batch: Callable[[ClipBatch], ClipBatch] = lambda batch: batch,
    ) -> None:
        self.cpu, self.plan, self.batch = _cpu(catalog, config), plan, batch

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        for batch in self.cpu.batches([[self.plan(plan) for plan in batch] for batch in plans]):
            yield self.batch(batch)


def _cpu(catalog: Catalog, config: Config) -> Backend:
    return build_backend("cpu", catalog, config, torch.device("cpu"))


def _earlier(plan: ClipPlan) -> ClipPlan:
    return replace(plan, start=max(plan.start - 1, 0))


def _brighter(batch: ClipBatch) -> ClipBatch:
    return replace(batch, views=tuple(view * 0.9 for view in batch.views))


def _half(batch: ClipBatch) -> ClipBatch:
    return replace(batch, views=tuple(view[:1] for view in batch.views), index=batch.index[:1])


def _broken(batch: ClipBatch) -> ClipBatch:
    raise RuntimeError("Caught in a worker\nout of luck")


def _bench(raw: Path, *contenders: LoaderContender) -> LoaderBenchmark:
    config = load(overrides=SMALL)
    with Console(enabled=False) as console:
        return bench_loader(
            raw, None, config, clips=4, repeats=1, console=console, list_contenders=lambda _: contenders
        )


OURS = LoaderContender(name=BASELINE, description="as it is", prepare=_cpu)


def test_a_contender_that_is_wrong_gets_no_figure(raw: Path) -> None:
    result = _bench(
        raw,
        OURS,
        LoaderContender(name="late", description="", prepare=partial(_Bent, plan=_earlier)),
        LoaderContender(name="dark", description="", prepare=partial(_Bent, batch=_brighter)),
        LoaderContender(name="broken", description="", prepare=partial(_Bent, batch=_broken)),
        LoaderContender(name="missing", description="", prepare=_cpu, unavailable_reason="it is not installed"),
    )
    ours, late, dark, broken, missing = result.rows
    assert ours.stats
    assert ours.ratio == 1
    assert [row.stats for row in (late, dark, broken, missing)] == [None] * 4
    assert late.reason.startswith("refused: shows earlier frames than asked for in ")
    assert dark.reason.startswith("refused: is ")
    assert "of 255 away from the reference in" in dark.reason
    assert broken.reason == "fails: out of luck"
    assert missing.reason == "skipped: it is not installed"
    result.check()


def test_clips_that_do_not_come_are_counted(raw: Path) -> None:
    """Of those that nobody looks at while they are timed."""
    (row,) = _bench(
        raw, LoaderContender(name="lossy", description="", prepare=partial(_Bent, batch=_half), tolerance=None)
    ).rows
    assert row.stats
    assert row.stats.dropped_clips == 2


def test_without_ours_there_is_nothing_to_compare_with(raw: Path) -> None:
    wrong = replace(OURS, prepare=partial(_Bent, plan=_earlier))
    result = _bench(raw, wrong, replace(OURS, name="another"))
    assert result.rows[1].stats
    assert result.rows[1].ratio is None
    with pytest.raises(CaclError, match="cacl cpu, raw videos: refused"):
        result.check()


def test_videos_without_motion_are_no_reason_to_refuse(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(tmp_path / "still.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "30"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    (row,) = _bench(tmp_path, replace(OURS, tolerance=255.0)).rows
    assert row.reason == ""


# --- The videos it is meant for


@pytest.mark.parametrize(("codec", "name"), [("xvid", "mpeg4"), ("h264", "h264")])
def test_the_corpus_is_like_ucf101(make_video: Callable[..., Path], tmp_path: Path, codec: str, name: str) -> None:
    """Sizes, lengths and codecs, and that packing the B-frames left every frame in its place."""
    footage, out, length = tmp_path / "footage", tmp_path / "out", 30
    make_video(footage / "run/one.mp4", frames=length, size=(320, 240))
    make_video(footage / "walk/two.avi", frames=length, size=(480, 240), codec="mpeg4")
    make_video(footage / "walk/tiny.mp4", frames=length, size=(64, 48))
    script = ROOT / "benchmarks" / "scripts" / "make_corpus.py"
    subprocess.run([sys.executable, script, footage, out, "--videos", "3", "--codec", codec], check=True, timeout=120)

    catalog = scan(replace(load().data, root=str(out)))
    assert [video.label for video in catalog.videos] == ["run", "run", "walk"]
    assert {(v.frames, v.width, v.height, v.codec) for v in catalog.videos} == {(180, 320, 240, name)}
    assert codec == "h264" or not any(video.seek_points for video in catalog.videos)
    with av.open(str(footage / "run/one.mp4")) as container:
        source = np.stack([_bars(frame) for frame in container.decode(video=0)])
    with av.open(str(catalog.location(catalog.videos[0]))) as container:
        frames = list(container.decode(video=0))
        kinds = {PictureType(frame.pict_type).name for frame in frames}
    shown = [int(np.abs(source - _bars(frame)).sum((1, 2)).argmin()) for frame in frames]
    there_and_back = [*range(length), *range(length - 2, 0, -1)]
    assert shown == [there_and_back[time % len(there_and_back)] for time in range(180)]
    assert kinds == {"I", "P", "B"}


def _bars(frame: av.VideoFrame) -> np.ndarray:
    """The upper half of a frame, whose bars spell its number."""
    return frame.to_ndarray(format="gray")[:120:8, ::8].astype(np.int64)
