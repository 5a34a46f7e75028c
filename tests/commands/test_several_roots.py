"""Several roots on the command line: trained on, evaluated and scanned together, or refused with the way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands.finished import Run, result


class Roots(NamedTuple):
    """A set with splits, a prepared set of other videos with splits, and a folder that tells nothing."""

    listed: Path
    prepared: Path
    plain: Path

    @property
    def override(self) -> str:
        """The value of --set that names them."""
        return f"data.roots=[{{root='{self.listed}'}}, {{root='{self.prepared}', weight=2}}, {{root='{self.plain}'}}]"


@pytest.fixture(scope="module")
def roots(
    videos: Path, make_video: Callable[..., Path], interpreter: Run, tmp_path_factory: pytest.TempPathFactory
) -> Roots:
    folder = tmp_path_factory.mktemp("roots")
    for number in range(4):
        split = "test" if number == 3 else "train"
        make_video(folder / f"source/{split}/sit/{number}.mp4", frames=9, size=(32, 24), gop=4, first=50 * number)
        make_video(folder / f"plain/{number}.mp4", frames=9, size=(32, 24), gop=4, first=50 * number + 20)
    assert interpreter("data", "prepare", folder / "source", folder / "prepared").returncode == 0
    return Roots(videos, folder / "prepared", folder / "plain")


@pytest.fixture
def no_root(config_file: Path, tmp_path: Path) -> Path:
    """The configuration without its `data.root`."""
    lines = config_file.read_text().splitlines()
    (tmp_path / "none.toml").write_text("\n".join(line for line in lines if not line.startswith("root = ")))
    return tmp_path / "none.toml"


def test_a_run_on_several_roots_is_trained_resumed_and_evaluated(
    cacl: Run, roots: Roots, no_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trained = cacl("train", "-c", no_root, "-s", roots.override, "--run", run, "--json")
    # Two epochs of 6 videos, twice 3, and 4; the plain folder is trained on as a whole.
    assert result(trained)["steps"] == 2 * (6 + 6 + 4) // 4
    assert result(trained)["clips_trained"] == 32
    assert f"6 training videos of 8 in {roots.listed} (layout csv), 6 of 16 clips of an epoch\n" in trained.stderr
    assert f"3 training videos of 4 in {roots.prepared} (layout classes), 6 of 16 clips of an epoch\n" in trained.stderr
    assert f"4 training videos of 4 in {roots.plain} (layout folder), 4 of 16 clips of an epoch\n" in trained.stderr
    manifest = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    assert [(line["root"], line["path"]) for line in manifest if line["root"]] == [(2, f"{n}.mp4") for n in range(4)]

    again = cacl("train", "-c", run / "config.toml", "--resume", "--json")
    assert result(again)["steps_taken"] == 0
    other = cacl("train", "-c", no_root, "-s", roots.override.replace("weight=2", "weight=3"), "--run", run, "--resume")
    assert other.returncode == 1
    assert other.stderr.splitlines()[-1] == (
        f"cacl: {run} was begun with other training videos than {roots.listed}, {roots.prepared}, {roots.plain} holds "
        "now, or with other weights or another order of its roots: begin another run"
    )

    (table,) = result(cacl("eval", "retrieval", run, "--json"))
    assert (table["classes"], table["queries"], table["gallery"]) == (3, 2 + 1, 6 + 3)
    one = cacl("eval", "retrieval", run, "-s", "data.roots=[]", "-s", f"data.root={roots.listed}", "--json")
    (table,) = result(one)
    assert (table["classes"], table["queries"], table["gallery"]) == (2, 2, 6)


def test_settings_are_chosen_for_epochs_of_these_weights(cacl: Run, roots: Roots) -> None:
    """As many clips as for a single root: they are fewer epochs where an epoch has more clips than there are videos."""
    options = ["-s", "train.device=cpu", "--dry-run", "--json"]
    chosen = result(cacl("train", "-s", roots.override, *options))
    without = result(cacl("train", "-s", roots.override.replace("weight=2", "weight=1"), *options))
    assert chosen["train"]["epochs"] * 16 == pytest.approx(without["train"]["epochs"] * 13, rel=1e-3)
    assert [root["weight"] for root in chosen["data"]["roots"]] == [1.0, 2.0, 1.0]


def test_a_scan_tells_each_root(cacl: Run, roots: Roots, no_root: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(roots.plain, tmp_path / "plain"))
    (plain / "empty.mp4").touch()
    shutil.copy(roots.listed / "run/0.mp4", plain / "copy.mp4")
    roots = roots._replace(plain=plain)
    arguments = ["data", "scan", "-c", no_root, "-s", roots.override, "-s", "data.max_rejected_share=0.2"]
    found = result(cacl(*arguments, "--json"))["roots"]
    assert [(root["root"], root["layout"], root["weight"]) for root in found] == [
        (str(roots.listed), "csv", 1.0),
        (str(roots.prepared), "classes", 2.0),
        (str(roots.plain), "folder", 1.0),
    ]
    assert [len(root["videos"]) for root in found] == [8, 4, 5]
    assert found[2]["rejected"] == [{"path": "empty.mp4", "reason": "is empty (0 bytes)"}]
    printed = cacl(*arguments).stdout
    for root, layout, count in ((roots.listed, "csv", 8), (roots.prepared, "classes", 4), (plain, "folder", 5)):
        assert f"{root}: layout {layout}\n{count} usable videos, " in printed
    assert f"note      1 of its 5 videos are in {roots.listed} too, such as copy.mp4 (run/0.mp4 there)" in printed
    too_many = cacl(*arguments[:-2])
    assert too_many.returncode == 1
    assert f"data.root = {plain}: 1 of 6 videos cannot be used" in too_many.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["train", "{listed}", "-c", "{config}"], "data.root = '{listed}': with data.roots each root has its own"),
        (["train", "{listed}"], "data.root = '{listed}': with data.roots each root has its own"),
        (["data", "scan", "{listed}"], "data.root = '{listed}': with data.roots each root has its own"),
        (["data", "prepare", "{listed}", "target"], "data.root = '{listed}': with data.roots each root has its own"),
        (["data", "join", "{listed}"], "of data.*, only data.max_rejected_share is set for a join"),
        (["bench-loader", "{listed}", "-c", "{config}"], "data.roots: loaders are compared on one folder"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_takes_one_root_says_so(cacl: Run, roots: Roots, no_root: Path, command: list[str], told: str) -> None:
    arguments = [word.format(listed=roots.listed, config=no_root) for word in command]
    refused = cacl(*arguments, "-s", roots.override)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"cacl: {told.format(listed=roots.listed)}")


def test_a_scan_of_nothing_says_what_it_takes(cacl: Run) -> None:
    refused = cacl("data", "scan")
    assert refused.returncode == 2
    assert (
        refused.stderr
        == "cacl: nothing to scan: name a folder of videos, or a configuration with data.root or data.roots\n"
    )
