"""What the sinks write, also when a run is resumed: read by other means than those that wrote it."""

import importlib
import importlib.machinery
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cacl.errors import UsageError
from cacl.registry import LOGGERS
from cacl.reporting.sinks.jsonl import JsonlSink
from cacl.reporting.sinks.select import check_installed, open_sinks
from tests.tiny import tiny_config

# ------------------------------------------------------------------------------------------------- metrics.jsonl


def strict(line: str) -> Any:
    """Reads JSON as it is defined, which knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(line, parse_constant=refuse)


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    sink, file = JsonlSink(tiny_config(tmp_path), 0), tmp_path / "metrics.jsonl"
    sink.write(2, {"loss": 0.1, "clips_skipped": 3})
    assert [strict(line) for line in file.open()] == [{"step": 2, "loss": 0.1, "clips_skipped": 3}]
    sink.write(4, {"loss": math.nan, "order": math.inf, "contrast": -math.inf})
    assert strict(file.read_text().splitlines()[1]) == {"step": 4, "loss": None, "order": None, "contrast": None}
    sink.close()


@pytest.mark.parametrize("torn", ["", '{"step": 6, "lo', '{"step": 6, "loss": 0.0}', "\0\0\0\0"])
def test_lines_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path: Path, torn: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for run, steps in ((whole, (2, 4, 6, 8)), (cut, (2, 4))):
        run.mkdir()
        sink = JsonlSink(tiny_config(run), 0)
        for step in steps:
            sink.write(step, {"loss": 1 / step})
        sink.close()
    with (cut / "metrics.jsonl").open("a") as file:
        file.write(torn)
    for first_step in (3, 3, 2):
        sink = JsonlSink(tiny_config(cut), first_step)
        for step in (4, 6, 8):
            sink.write(step, {"loss": 1 / step})
        sink.close()
        assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert os.listdir(cut) == ["metrics.jsonl"]


# --------------------------------------------------------------------------------------------------- which there are


def test_every_run_has_a_file_of_metrics_and_events(tmp_path: Path) -> None:
    for sink in open_sinks(tiny_config(tmp_path), 0):
        sink.write(1, {"loss": 1.0})
        sink.close()
    events, metrics = sorted(os.listdir(tmp_path))
    assert events.startswith("events.out.tfevents")
    assert metrics == "metrics.jsonl"


@pytest.mark.parametrize("name", LOGGERS.names())
def test_a_logger_that_is_not_installed_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its name is no package, though Python would import it: W&B leaves one where it ran."""
    (tmp_path / name).mkdir()
    config = tiny_config("never written", {"train": {"loggers": (name,)}})
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    with pytest.raises(UsageError) as caught:
        check_installed(config)
    assert str(caught.value) == f'train.loggers: "{name}" is not installed; `pip install {name}` installs it'
    (tmp_path / name / "__init__.py").write_text("raise AssertionError('imported')")
    importlib.invalidate_caches()
    check_installed(config)
