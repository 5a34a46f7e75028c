"""The commands of docs/training.md for UCF101 and HMDB51, as they stand there, on stand-ins of both sets."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
import timm
import torch

from cacl.checkpoints import checkpoint
from cacl.config import Config
from cacl.loaders.clip_loader import ClipLoader
from tests import forked
from tests.commands import killed
from tests.commands.finished import Finished, Run, result
from tests.launch import ROOT
from tests.stand_ins import HMDB51_DIGITS, write_hmdb51, write_ucf101

FOLDS = (1, 2, 3)
SMALL_CLIPS = ("clip.frames=8", "clip.size=16", "train.batch_size=8", "retrieval.clips_per_video=2")
SMALL = {
    "train --config ucf101_r3d": (
        *SMALL_CLIPS, "model.width=0.0625", "model.transformer.embedder=test_resnet", "model.transformer.width=16",
        "model.transformer.depth=1", "model.transformer.heads=2", "contrast.queue_size=32", "train.epochs=1",
    ),
    "finetune": ("train.epochs=1", "optim.warmup_epochs=0"),
    "finetune --config finetune_official": (*SMALL_CLIPS, "train.epochs=2"),
}  # fmt: skip
"""What makes a command small, by the command and its recipe. All other settings are those of the page."""


def commands(page: str) -> list[str]:
    """Returns the commands of a page that name one of the two sets, without what is said behind them."""
    lines = re.findall(r"^cacl .*$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    found = [line.partition("#")[0].strip() for line in lines]
    return [line for line in found if re.search("ucf-?101|hmdb51", line, re.IGNORECASE) and "official.toml" not in line]


class Fold(NamedTuple):
    """The videos of an official division, as `class/stem`."""

    train: set[str]
    test: set[str]


def read_ucf101(fold: int) -> Fold:
    """Reads the lists of a division anew, as they are published."""
    train, test = (Path(f"data/UCF-101/ucfTrainTestlist/{part}list0{fold}.txt") for part in ("train", "test"))
    return Fold(*({line.split()[0].removesuffix(".avi") for line in file.open()} for file in (train, test)))


def read_hmdb51(fold: int) -> Fold:
    found = Fold(set(), set())
    for file in Path("data/HMDB51").rglob(f"*_test_split{fold}.txt"):
        for line in file.open():
            name, digit = line.strip().rsplit(" ", 1)
            if digit != "0":
                found[int(digit) - 1].add(f"{file.name.removesuffix(f'_test_split{fold}.txt')}/{name[:-4]}")
    return found


Loaded: TypeAlias = dict[tuple[str, str | None], set[str]]
"""The videos that the first loader of a run and a split delivers, as `class/stem`."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Is filled with what the commands of this process load."""
    found: Loaded = {}
    build = ClipLoader.from_config

    def observed(config: Config, **options: Any) -> ClipLoader:
        loader = build(config, **options)
        paths = [video.path.removesuffix(".mp4").removesuffix(".avi") for video in loader.catalog.videos]
        videos = {"/".join(path.split("/")[-2:]) for path in paths}  # prepared ones end in .avi.mp4
        assert len(videos) == len(loader.catalog.videos)
        found.setdefault((config.run, options.get("split", "train")), videos)
        return loader

    monkeypatch.setattr(ClipLoader, "from_config", observed)
    return found


def assert_folds(found: dict[str, Any], run: str, loaded: Loaded, lists: Callable[[int], Fold]) -> None:
    """Asserts that each division trained on its own videos and was judged by its own, and how the mean was taken."""
    accuracies = []
    assert list(found["folds"]) == [str(fold) for fold in FOLDS]
    for fold in FOLDS:
        table, listed = found["folds"][str(fold)], lists(fold)
        train, val, test = (loaded[f"{run}/fold{fold}", split] for split in ("train", "val", "test"))
        assert (train | val, test) == (listed.train, listed.test)
        assert train.isdisjoint(val)
        assert {name.split("/")[0] for name in val} == set(table["classes"])
        confusion = torch.tensor(table["results"]["fine-tuned"]["confusion"])
        assert confusion.sum() == table["videos"] == len(test)
        accuracies.append(confusion.trace().item() / confusion.sum().item())
    assert found["mean_top1"] == pytest.approx(sum(accuracies) / 3)


@pytest.fixture
def here(make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both sets."""
    monkeypatch.chdir(tmp_path)
    write_ucf101(Path("data/UCF-101"), make_video)
    write_hmdb51(Path("data/HMDB51"), make_video)
    return tmp_path


def test_stand_ins_tell_their_folds_apart(here: Path) -> None:
    for lists in (read_ucf101, read_hmdb51):
        assert [len(lists(fold).test) for fold in FOLDS] == [6, 3, 9]
    assert [len(read_ucf101(fold).train) for fold in FOLDS] == [18, 21, 15]
    assert [len(read_hmdb51(fold).train) for fold in FOLDS] == [3 * HMDB51_DIGITS[fold].count("1") for fold in FOLDS]


def test_the_readme_has_commands_of_the_page() -> None:
    readme, page = commands("README.md"), commands("docs/training.md")
    assert len(readme) == 4
    assert set(readme) <= set(page)


@pytest.mark.usefixtures("short_probes")
def test_the_commands_of_the_page(cacl: Run, here: Path, loaded: Loaded) -> None:
    weights = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": {f"module.encoder_q.{name}": x for name, x in weights.items()}}, "moco_v1_200ep.pth")
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    block = page.partition("## UCF101 and HMDB51")[2].split("```")[3]
    found = {}
    for line in block.strip().splitlines():
        _, command, *arguments = shlex.split(line)
        config = ["--config", arguments[arguments.index("--config") + 1]] if "--config" in arguments else []
        for setting in SMALL.get(" ".join([command, *config]), ()):
            arguments += ["--set", setting]
        found[line] = result(cacl(command, *arguments, "--json"))

    def of(beginning: str) -> Any:
        (value,) = (value for line, value in found.items() if line.startswith(f"cacl {beginning}"))
        return value

    assert loaded["runs/ucf101_r3d", None] == read_ucf101(1).train
    for line, lists in (("runs/ucf101_r3d", read_ucf101), ("data.layout=hmdb51", read_hmdb51)):
        ((table,),) = (value for name, value in found.items() if "eval retrieval" in name and name.endswith(line))
        assert (table["queries"], table["gallery"]) == (len(lists(1).test), len(lists(1).train))
        assert {"cnn, trained", "transformer, trained", "cnn, untrained"} < set(table["recall"])
    assert {table["videos"]["test"] for table in of("eval recognition runs/ucf101_r3d")} == {6}
    assert_folds(of("finetune data/ucf101-prepared"), "runs/ucf101_finetuned", loaded, read_ucf101)
    assert_folds(of("finetune data/hmdb51-prepared"), "runs/hmdb51_finetuned", loaded, read_hmdb51)
    assert_folds(of("finetune data/UCF-101"), "runs/ucf101_official", loaded, read_ucf101)
    fold = of("eval recognition runs/ucf101_finetuned/fold1")
    assert (fold["crops"], fold["videos"]) == (3, 6)
    text = cacl("finetune", "--run", "runs/hmdb51_finetuned", "--folds", "1,2,3", "--resume").stdout.splitlines()
    mean = of("finetune data/hmdb51-prepared")["mean_top1"]
    assert text[-1] == f"mean of 3 folds: top-1 {100 * mean:.1f} %"
    assert [line.split(" % of ")[1] for line in text[:-1]] == [f"{n} test videos" for n in (6, 3, 9)]


def test_killed_folds_go_on_where_they_were(
    process: Run, trained: tuple[Path, Finished], environment: dict[str, str], here: Path
) -> None:
    """The first fold is done when the process is killed, the second has begun, and the third has not."""
    common = ("--from", trained[0], "--folds", "1,2,3", "--set", "train.epochs=2", "--set", "train.checkpoint_every=3")
    whole = result(process("finetune", "data/UCF-101", "--run", "whole", *common, "--json"))
    command = ("finetune", "data/UCF-101", "--run", "killed", *common)
    ended = forked.run(killed.cacl, "killed/fold2", 4, *command, environment=os.environ | environment)
    assert ended.returncode == -signal.SIGKILL
    assert checkpoint.load(Path("killed/fold2")).step == 3
    assert not Path("killed/fold3").exists()
    first = Path("killed/fold1/best.pt").stat().st_mtime_ns
    resumed = process("finetune", "--run", "killed", "--folds", "1,2,3", "--resume", "--json")
    assert result(resumed) == whole
    assert Path("killed/fold1/best.pt").stat().st_mtime_ns == first
    assert sum(line.startswith("step 1/") for line in resumed.stderr.splitlines()) == 1  # of the third fold


@pytest.mark.parametrize(
    ("root", "folds", "removed", "told"),
    [
        ("UCF-101", "1,4", "no file", "data.fold = 4: no list named trainlist04.txt"),
        ("UCF-101", "1,2,3", "ucfTrainTestlist/testlist03.txt", "data.fold = 3: no list named testlist03.txt"),
        ("UCF-101", "1,2,3", "ucfTrainTestlist/*", "layout classes has no folds"),
        ("UCF-101", "2,1", "Archery/*_g[!0]*_c01.avi", "has the label 'Archery', which is none of the 2 classes"),
        ("HMDB51", "1,2,3", "*/catch_test_split3.txt", "data.fold = 3: no list named catch_test_split3.txt"),
    ],
)
def test_what_is_wrong_is_told_before_the_first_fold(
    cacl: Run, here: Path, trained: tuple[Path, Finished], root: str, folds: str, removed: str, told: str
) -> None:
    for file in Path("data", root).glob(removed):
        file.unlink()
    if "Archery" in removed:
        for group in ("02", "08"):
            Path("data/UCF-101/Archery", f"v_Archery_g{group}_c01.avi").unlink()
    finished = cacl("finetune", f"data/{root}", "--from", trained[0], "--run", "run", "--folds", folds)
    assert finished.returncode == 1
    assert told in finished.stderr.splitlines()[-1]
    assert not Path("run").exists()


def test_a_class_without_videos_is_told(cacl: Run, here: Path) -> None:
    shutil.rmtree("data/HMDB51/catch")
    finished = cacl("data", "prepare", "data/HMDB51", "prepared")
    assert finished.returncode == 0
    assert finished.stdout.count("missing   catch/#20_Rhythm_clip_catch_u_cm_np1_fr_bad_") == 8
