"""The page of a training, while it goes on and afterwards, and that it leaves the training alone."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch._dynamo.utils
from playwright.sync_api import Page
from torch import Tensor

from cacl import config as configuration
from cacl.cli import main
from cacl.clips import ClipBatch, VideoRecord
from cacl.config import Config, ContrastConfig
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog
from cacl.reports import training
from cacl.reports.training import Progress, TrainingReport, write_training_page
from cacl.reports.training_samples import predict_distances
from cacl.training.embedding_warnings import EmbeddingWarnings
from cacl.training.finetuning import finetune
from cacl.training.run_state import RunState
from cacl.training.stop_signals import TrainingInterruptedError
from cacl.training.train_state import TrainState
from cacl.training.trainer import train
from tests.reports.training_runs import levenshtein, logged, made_up_run, values_in
from tests.same_bits import assert_same_bits
from tests.tiny import tiny_batch, tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")

VIDEOS, BATCH, STEPS = 7, 4, 6
WALL_CLOCK = ("clips_per_second", "data_wait_share")


class Watched(NamedTuple):
    """A run with a report, and the same one without."""

    run: Path
    plain: Path
    page: Path
    page_before: Path
    """The page as it was in the middle of the run."""
    batch: ClipBatch
    """The clips of the last step."""
    paths: list[str]
    predicted: list[int]
    """What the network says of their order after it, in evaluation mode."""


@pytest.fixture(scope="module")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        label = ("run", "walk")[number % 2]
        make_video(root / label / f"{number}.mp4", frames=8 + number, size=(32, 24), gop=4)
    return root


def config_of(run: Path, videos: Path, steps: int, **sections: dict[str, Any]) -> Config:
    own = {
        "data": {"root": str(videos), "cache": str(run.parent / "cache")},
        "train": {"epochs": steps * BATCH / VIDEOS, "batch_size": BATCH, "log_every": 3, "checkpoint_every": 3},
    }
    return tiny_config(run, own, sections)


@pytest.fixture(scope="module")
def watched(videos: Path, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    plain, run, report = (folder / name for name in ("plain", "run", "report"))
    report.mkdir()
    train(config_of(plain, videos, STEPS))
    with TrainingReport(report, run) as watcher:
        seen = []

        def watch_and_keep(state: RunState[Any], catalog: Catalog, batch: ClipBatch, last: bool) -> None:
            watcher(state, catalog, batch, last)
            if last:
                query = copy.deepcopy(state.model).query.eval()
                logits = query(batch.query.float(), batch.order)["order"]["cnn"]
                seen.append((copy.deepcopy(batch), [catalog.videos[i].path for i in batch.video.tolist()], logits))
            else:
                shutil.copy(report / "index.html", folder / "before.html")

        train(config_of(run, videos, STEPS), on_log=watch_and_keep)
    ((batch, paths, logits),) = seen
    return Watched(run, plain, report / "index.html", folder / "before.html", batch, paths, distances_of(logits))


def distances_of(logits: Tensor) -> list[int]:
    """Class 0 is the true order, and class c stands for a distance of c + 1, since 1 cannot occur."""
    return [0 if choice == 0 else choice + 1 for choice in logits.argmax(1).tolist()]


def test_training_is_the_same_bits_with_a_report(watched: Watched) -> None:
    """The order head has dropout, which would notice another random state; the page was written between the steps."""
    assert_same_bits(watched.run, watched.plain)
    with_page, without = (
        [{name: value for name, value in line.items() if name not in WALL_CLOCK} for line in logged(run)]
        for run in (watched.run, watched.plain)
    )
    assert with_page == without


def test_the_page_has_the_last_values_of_all_scalars(watched: Watched, open_page: Callable[..., Page]) -> None:
    shown, lines = open_page(watched.page), logged(watched.run)
    assert shown.title() == "Training cacl"
    assert f"Step {STEPS} of {STEPS}, epoch {lines[-1]['epoch']:.1f}. The run has ended." in shown.inner_text("header")
    expected = {name: f"{value:.4g}" for name, value in lines[-1].items() if name not in ("step", "epoch")}
    values = values_in(shown)
    assert {name: last for name, (last, _, _) in values.items()} == expected
    for name, (_, lowest, highest) in values.items():
        both = [line[name] or 0.0 for line in lines if name in line]
        assert [lowest, highest] == [f"{min(both):.4g}", f"{max(both):.4g}"]


def test_every_figure_has_words_and_files_for_papers(watched: Watched, open_page: Callable[..., Page]) -> None:
    figures = open_page(watched.page).locator(".figures figure")
    assert figures.count() >= 12
    for number in range(figures.count()):
        figure = figures.nth(number)
        words = figure.get_by_role("img").get_attribute("aria-label") or ""
        assert ("from step 3 to 6. " in words) != words.startswith("drift at step 6. CNN query: ")
        assert len(figure.locator("figcaption").inner_text()) > 30
    names = {file.stem for file in watched.page.parent.glob("*.svg")}
    assert names == {file.stem for file in watched.page.parent.glob("*.png")}
    assert len(names) == figures.count()


def test_the_page_of_a_run_that_goes_on_loads_itself_anew(watched: Watched, open_page: Callable[..., Page]) -> None:
    shown = open_page(watched.page_before)
    assert f"Step 3 of {STEPS}" in shown.inner_text("header")
    assert "The run goes on." in shown.inner_text("header")
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in watched.page_before.read_text()
    shown.clock.install()
    shown.reload()
    with shown.expect_navigation():
        shown.clock.fast_forward(31_000)
    shown.evaluate("window.kept = true")
    shown.get_by_role("button", name="Stop loading anew").focus()
    shown.keyboard.press("Enter")
    shown.clock.fast_forward(90_000)
    assert shown.evaluate("window.kept")
    with shown.expect_navigation():
        shown.get_by_role("button", name="Load anew every 30 seconds").click()
        shown.clock.fast_forward(31_000)


def test_the_last_page_stays(watched: Watched, open_page: Callable[..., Page]) -> None:
    assert "refresh" not in watched.page.read_text()
    shown = open_page(watched.page)
    shown.clock.install()
    shown.reload()
    shown.evaluate("window.kept = true")
    shown.clock.fast_forward(90_000)
    assert shown.evaluate("window.kept")
    assert [button.inner_text() for button in shown.get_by_role("button").all()] == ["Pause previews"]


def test_it_fits_a_phone_and_has_a_dark_form(watched: Watched, open_page: Callable[..., Page]) -> None:
    shown = open_page(watched.page, width=360, height=700, color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 28)"
    widths = shown.locator(".figures svg").evaluate_all("x => x.map(y => y.getBoundingClientRect().width)")
    assert all(280 < width <= 330 for width in widths)
    assert shown.get_by_role("region", name="Values").evaluate("x => x.scrollWidth <= x.clientWidth")


def test_clips_are_shown_as_the_network_sees_them(watched: Watched, open_page: Callable[..., Page]) -> None:
    shown = open_page(watched.page)
    cards = shown.locator(".card")
    assert cards.count() == BATCH
    assert cards.first.locator("figcaption").all_inner_texts() == ["query view", "its shuffled copy", "key view"]
    assert all(shown.locator(".strip img").evaluate_all("images => images.map(image => image.naturalWidth == 8 * 16)"))
    assert cards.locator("h3").all_inner_texts() == watched.paths
    true = [levenshtein(order) for order in watched.batch.order.tolist()]
    for card, distance, predicted in zip(cards.all(), true, watched.predicted, strict=True):
        assert f"edit distance {distance} of at most 4, predicted {predicted}\n" in card.inner_text()
    error = sum(abs(x - y) for x, y in zip(true, watched.predicted, strict=True)) / BATCH
    constant = min(sum(abs(x - y) for x in true) / BATCH for y in range(5))
    told = f"Over the batch the prediction is off by {error:.2f} on average, and the best constant by {constant:.2f}."
    assert told in shown.inner_text("main")


def test_predictions_are_those_of_the_weights_and_change_nothing() -> None:
    """The second implementation takes the network itself in evaluation mode, and distances by hand."""
    state = TrainState(tiny_config("never written"), 100, torch.device("cpu"))
    for _ in range(3):
        state.train_step(tiny_batch(6), sync=True)
    batch = tiny_batch(20, seed=1)
    batch.query.mul_(torch.linspace(-4, 4, 20).view(-1, 1, 1, 1, 1))
    with torch.no_grad():  # Large weights, and no class that is the likeliest of all clips: so that predictions differ.
        head: Any = state.model.query.cnn_heads["order"]
        for parameter in head.parameters():
            parameter.normal_() if parameter.dim() > 1 else parameter.zero_()
        head[-1].bias -= state.model.query.eval()(batch.query.float(), batch.order)["order"]["cnn"].mean(0)
        state.model.query.train()
    before, random = copy.deepcopy(state.model.state_dict()), torch.get_rng_state()
    predicted = predict_distances(state, batch)
    assert predicted is not None
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert all(module.training for module in state.model.query.modules())

    logits = state.model.query.eval()(batch.query.float(), batch.order)["order"]["cnn"]
    assert predicted.tolist() == distances_of(logits)
    assert len(set(predicted.tolist())) > 1


def test_the_compiler_is_not_asked_for_predictions() -> None:
    state = TrainState(tiny_config("never written", {"train": {"compile": True}}), 100, torch.device("cpu"))
    torch._dynamo.utils.counters.clear()
    assert predict_distances(state, tiny_batch(4)) is not None
    assert not torch._dynamo.utils.counters["frames"]


def test_nothing_is_predicted_where_no_order_is_learnt() -> None:
    state = TrainState(tiny_config("never written", {"losses": {"order": 0.0}}), 100, torch.device("cpu"))
    assert predict_distances(state, tiny_batch(4)) is None


def test_problems_stand_at_the_top_in_the_words_of_the_warnings(
    tmp_path: Path, open_page: Callable[..., Page], caplog: pytest.LogCaptureFixture
) -> None:
    """The CNN recovers, and the transformer stays collapsed."""
    ranks = {10: (1.1, 3.0), 20: (1.15, 3.0), 30: (3.0, 1.15), 40: (3.0, 1.05)}
    lines = [
        {"step": step, "loss": None, "effective_rank/cnn_query": cnn, "effective_rank/transformer_query": transformer}
        for step, (cnn, transformer) in ranks.items()
    ]
    config = {"train": {"batch_size": 4}, "contrast": {"negatives": "batch"}}
    write_training_page(tmp_path, made_up_run(tmp_path / "run", lines, **config), None, Progress(99, ""))
    told = open_page(tmp_path / "index.html").get_by_role("region", name="Warnings").inner_text()
    with caplog.at_level(logging.WARNING, logger="cacl"):
        warnings = EmbeddingWarnings(ContrastConfig(negatives="batch"))
        for line in (lines[1], lines[3]):
            measures = {name: value for name, value in line.items() if name.startswith("effective")}
            warnings.check(0, measures, 4)
    first, second = (message.removeprefix("warning: step 0: ").split(". What") for message in caplog.messages)
    assert f"In 2 log lines from step 10 to 20, {first[0]}\n" in told
    assert f"Since step 30, {second[0]}\n" in told
    assert f"What{first[1]}." in told


def test_good_runs_have_no_warnings(watched: Watched, tmp_path: Path) -> None:
    lines = [{"step": 1, "effective_rank/cnn_query": 3.5, "alignment/cnn_query.cnn_key": 0.4}]
    write_training_page(tmp_path, made_up_run(tmp_path / "run", lines), None, Progress(9, ""))
    assert "What usually helps" not in (tmp_path / "index.html").read_text()


def test_a_run_that_fails_says_so_on_its_page(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    run = made_up_run(tmp_path / "run", [{"step": 5, "loss": 1.0, "clips_per_second": 2.0}])
    state = TrainState(tiny_config(run), 100, torch.device("cpu"))
    report = TrainingReport(tmp_path, run)
    report(state, no_catalog(4), tiny_batch(4), last=False)
    assert "The run goes on." in (tmp_path / "index.html").read_text()
    with pytest.raises(DataError), report:
        raise DataError("3 of 9 videos <fail>")
    header = open_page(tmp_path / "index.html").inner_text("header")
    assert "The run was ended early: 3 of 9 videos <fail>" in header
    assert "goes on" not in header


def test_what_never_began_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(DataError), TrainingReport(tmp_path, tmp_path / "run"):
        raise DataError("there are no videos")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_stop_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = made_up_run(tmp_path / "run", [{"step": 5, "loss": 1.0}])
    state = TrainState(tiny_config(run), 100, torch.device("cpu"))
    with TrainingReport(tmp_path / "gone", run) as report:
        report(state, no_catalog(4), tiny_batch(4), last=False)
    assert (
        caplog.messages[0]
        == f"warning: --report: {tmp_path}/gone/loss.png: cannot be written (No such file or directory)"
    )


def test_what_cannot_be_drawn_does_not_stop_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """matplotlib cannot lay out an axis as long as float64 goes."""
    run = made_up_run(tmp_path / "run", [{"step": 5, "loss": 1.0}, {"step": 10, "loss": 1.7e308}])
    state = TrainState(tiny_config(run), 100, torch.device("cpu"))
    with TrainingReport(tmp_path, run) as report:
        report(state, no_catalog(4), tiny_batch(4), last=False)
    assert caplog.messages[0].startswith("warning: --report: the page cannot be made (")


def test_pages_are_written_no_more_often_than_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_up_run(tmp_path / "run", [{"step": 5, "loss": 1.0}])
    state, now, written = TrainState(tiny_config(run), 100, torch.device("cpu")), 1000.0, []

    class Counted(TrainingReport):
        def _write(self, ended: str) -> None:
            nonlocal now
            written.append((now, ended))
            now += 6.0  # It takes 6 seconds, so 194 seconds pass before the next.

    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now))
    with Counted(tmp_path, run) as report:
        for _ in range(50):
            report(state, no_catalog(4), tiny_batch(4), last=False)
            now += 10.0
        report(state, no_catalog(4), tiny_batch(4), last=True)
    assert [moment for moment, _ in written] == [1000.0, 1206.0, 1412.0, 1518.0]
    assert [ended for _, ended in written] == ["", "", "", "The run has ended."]


def test_a_run_that_is_stopped_leaves_a_page_and_resuming_completes_it(
    videos: Path, tmp_path: Path, open_page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, page, settings = (tmp_path / name for name in ("run", "report/index.html", "config.toml"))
    page.parent.mkdir()
    config = config_of(run, videos, 4, losses={"contrast": 0.0}, train={"log_every": 1})
    report = TrainingReport(page.parent, run)

    def report_and_stop(state: RunState[Any], catalog: Catalog, batch: ClipBatch, last: bool) -> None:
        report(state, catalog, batch, last)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterruptedError), report:
        train(config, on_log=report_and_stop)
    header = open_page(page).inner_text("header")
    assert "Step 2 of 4, " in header
    assert "stopped by SIGTERM after step 2 of 4; --resume goes on" in header
    assert "refresh" not in page.read_text()

    settings.write_text(configuration.to_toml(config))
    command = ["cacl", "train", "--config", str(settings), "--resume", "--report", str(page.parent)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = open_page(page)
    assert "Step 4 of 4, epoch 2.3. The run has ended." in shown.inner_text("header")
    assert "4 log lines." in shown.inner_text("main")
    assert "from step 1 to 4." in page.read_text()


def test_a_run_that_is_complete_gets_a_page_by_resuming_it(watched: Watched, videos: Path, tmp_path: Path) -> None:
    with TrainingReport(tmp_path, watched.run) as report:
        train(config_of(watched.run, videos, STEPS), resume=True, on_log=report)
    text = (tmp_path / "index.html").read_text()
    assert f"Step {STEPS} of {STEPS}, " in text
    assert "The run has ended." in text


def test_a_run_with_labels_has_a_page_without_clips(
    videos: Path, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    (tmp_path / "report").mkdir()
    config = config_of(tmp_path / "run", videos, 3, finetune={"val_share": 0.3})
    with TrainingReport(tmp_path / "report", tmp_path / "run") as report:
        finetune(config, on_log=report)
    shown = open_page(tmp_path / "report/index.html")
    values = values_in(shown)
    assert {"accuracy", "val_accuracy", "val_loss", "learning_rate/conv1"} <= set(values)
    assert shown.get_by_role("heading", name="Other scalars").count() == 0
    assert shown.locator(".card").count() == 0


def no_catalog(clips: int) -> Catalog:
    """A catalog of videos that no batch is loaded from."""
    record = VideoRecord(path="a.mp4", frames=9, declared_frames=9, width=8, height=8, rate=25.0, codec="h264")
    return Catalog(root=Path("nowhere"), layout="flat", videos=(record,) * clips, rejected=(), missing=())
