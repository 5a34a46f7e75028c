from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from cacl.reporting.console import Console
from cacl.reporting.scalars import ScalarLog, summarize
from tests.reporting.conftest import Terminal
from tests.tiny import tiny_config

SCALARS = {"loss": 1.2344, "epoch": 2.04, "clips_per_second": 12.34, "data_wait_share": 0.256}
CONTRAST = {"contrast": 0.5, "similarity/cnn": 0.25, "similarity/transformer": 0.75}
ORDER = {"order": 2.0, "order_accuracy": 0.125}


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run))
    found.Reload()
    return found


@pytest.mark.parametrize(
    ("scalars", "text"),
    [
        ({}, "loss 1.234, 12.3 clips/s, data wait 26%"),
        (CONTRAST, "loss 1.234, contrast 0.500, positives 0.50, 12.3 clips/s, data wait 26%"),
        (ORDER, "loss 1.234, order 2.000, order accuracy 0.12, 12.3 clips/s, data wait 26%"),
        ({"knn_accuracy/cnn.motion": 0.25}, "loss 1.234, k-NN cnn.motion 0.25, 12.3 clips/s, data wait 26%"),
        ({"clips_skipped": 3.0, "gradient_norm": 1.0}, "loss 1.234, 12.3 clips/s, data wait 26%, skipped 3"),
    ],
    ids=["loss alone", "contrast", "order", "neighbours", "skipped"],
)
def test_a_summary_names_what_is_there(scalars: dict[str, float], text: str) -> None:
    assert summarize(SCALARS | scalars) == text


def test_every_logging_step_is_a_line_and_an_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console, ScalarLog(tiny_config(tmp_path), console, first_step=2, steps=6) as scalar_log:
        scalar_log.write(4, SCALARS)
        scalar_log.write(6, SCALARS | {"loss": 1.0})
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"step 4/6, epoch 2.0: {summarize(SCALARS)}, ")
    assert last.startswith("step 6/6, epoch 2.0: loss 1.000, ")
    assert last.endswith(", 0 s left")
    logged = events(tmp_path)
    assert set(logged.Tags()["scalars"]) == set(SCALARS)
    assert [(event.step, event.value) for event in logged.Scalars("loss")] == [(4, pytest.approx(1.2344)), (6, 1.0)]


def test_events_of_an_earlier_attempt_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorBoard reads files in the order of their names. Those of one second and one process, as no resumed run has
    # them, end in a counter, and 10 would come before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for first, *logged in ((0, 2, 4, 6), (4, 6)):
        with Console() as console, ScalarLog(tiny_config(tmp_path), console, first_step=first, steps=6) as scalar_log:
            for step in logged:
                scalar_log.write(step, SCALARS | {"loss": float(first)})
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("loss")] == [(2, 0.0), (4, 0.0), (6, 4.0)]


def test_a_terminal_shows_the_summary_behind_the_bar(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.use(monkeypatch)
    with Console() as console, ScalarLog(tiny_config(tmp_path), console, first_step=0, steps=6) as scalar_log:
        scalar_log.write(3, SCALARS)
    shown = terminal.shown()
    assert "3/6" in shown
    assert summarize(SCALARS) in shown
    assert "step 3/6" not in shown


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path)
    with Console(enabled=False) as console, ScalarLog(config, console, first_step=0, steps=6) as scalar_log:
        scalar_log.write(3, SCALARS)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
