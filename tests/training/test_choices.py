"""What `cacl train` chooses holds together for every set and machine, and keeps the rules that it is made by."""

import dataclasses
import subprocess
import sys
from operator import attrgetter
from typing import Any

import pytest
from torch import Tensor, nn

from cacl import config as configuration
from cacl.config import Config, load_given
from cacl.method.cacl import CACL
from cacl.registry import ENCODERS
from cacl.training.choices import MachineFacts, VideoFacts, choose_settings

SETS = {
    "two": VideoFacts(count=2, clips_per_epoch=2, short_frames=2, median_frames=3, short_side=16),
    "seven tiny": VideoFacts(count=7, clips_per_epoch=7, short_frames=8, median_frames=9, short_side=24),
    "UT-Interaction": VideoFacts(count=83, clips_per_epoch=83, short_frames=75, median_frames=115, short_side=256),
    "HMDB51": VideoFacts(count=3570, clips_per_epoch=3570, short_frames=30, median_frames=79, short_side=240),
    "UCF101": VideoFacts(count=9537, clips_per_epoch=9537, short_frames=60, median_frames=170, short_side=240),
    "very many": VideoFacts(
        count=100_000_000, clips_per_epoch=100_000_000, short_frames=150, median_frames=300, short_side=256
    ),
}
MACHINES = {
    "a CPU": MachineFacts(device="cpu", gpu_memory_gib=0, processes=1),
    "three processes on a CPU": MachineFacts(device="cpu", gpu_memory_gib=0, processes=3),
    "a GPU": MachineFacts(device="cuda", gpu_memory_gib=80, processes=1),
    "eight GPUs": MachineFacts(device="cuda", gpu_memory_gib=24, processes=8),
}
GIVEN = (
    (),
    ("train.batch_size=24",),
    ("contrast.shuffle_bn_groups=3",),
    ("train.gradient_accumulation=3",),
    ("model.transformer.heads=5",),
    ("model.transformer.width=90",),
    ("model.transformer.weights=resnet50.pth",),
    ("model.cnn=c3d",),
    ("clip.frames=32", "clip.size=224"),
    ("clip.frames=5",),
    ("contrast.reversed_weight=0",),
    ("contrast.negatives=queue",),
    ("contrast.negatives=both", "contrast.pairs=cnn"),
    ("optim.schedule_per=epoch",),
    ("optim.name=sgd", "train.epochs=2.5"),
)


class MeanColor(nn.Module):
    """An encoder as another package may have it, without feature maps."""

    num_features = 3

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gain = nn.Parameter(Tensor([1.0]))

    def forward(self, clips: Tensor) -> Tensor:
        return self.gain * clips.mean((2, 3, 4))


def chosen(videos: VideoFacts, machine: MachineFacts, *overrides: str) -> tuple[Config, dict[str, Any]]:
    """The whole configuration, and what was chosen for it."""
    config, given = load_given(overrides)
    choices = {choice.key: choice.value for choice in choose_settings(videos, machine, config, given)}
    return configuration.replace(config, choices), choices


@pytest.mark.parametrize("overrides", GIVEN, ids=" ".join)
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("videos", SETS.values(), ids=SETS)
def test_what_is_chosen_holds_together(videos: VideoFacts, machine: MachineFacts, overrides: tuple[str, ...]) -> None:
    config, choices = chosen(videos, machine, *overrides)
    values = dict(pair.split("=") for pair in overrides)
    assert not set(values) & set(choices), "what is given is not chosen"
    for key in values:
        assert attrgetter(key)(config) == attrgetter(key)(load_given(overrides)[0]), "what is given holds"

    parts = machine.processes * config.train.gradient_accumulation
    share, rest = divmod(config.train.batch_size, parts)
    groups = config.contrast.shuffle_bn_groups
    if "train.batch_size" not in values:
        assert (rest, share % groups) == (0, 0)
        assert share >= 2 * groups
        smallest = 2 * parts * (groups if "contrast.shuffle_bn_groups" in values else 1)
        assert config.train.batch_size <= max(videos.count / 3, smallest)
    if config.contrast.negatives != "batch":
        encoders = 1 if config.contrast.pairs == "cnn" else 2
        assert config.contrast.queue_size < max(2, videos.count * encoders), "the queue holds videos of the same epoch"
    transformer = config.model.transformer
    assert transformer.weights or not transformer.frozen
    assert bool(transformer.weights) == (transformer.embedder not in ("light", "tubelet"))
    assert transformer.embedder != "tubelet" or config.clip.frames % 2 == 0
    if "augment.flip_prob" not in values:
        assert (config.augment.flip_prob == 0) == (config.contrast.reversed_weight > 0), "what one side shows mirrored"
    if "clip.frames" not in values and config.model.cnn != "c3d":
        assert config.clip.frames <= videos.short_frames
        assert config.clip.size <= max(16, videos.short_side)
        assert config.clip.span <= max(config.clip.frames, videos.median_frames / 2)


@pytest.mark.parametrize(("short_frames", "frames"), [(2, 2), (3, 2), (7, 6), (60, 8)])
def test_tubelets_get_an_even_number_of_frames(short_frames: int, frames: int) -> None:
    videos = dataclasses.replace(SETS["UCF101"], short_frames=short_frames)
    config, _ = chosen(videos, MACHINES["a CPU"])
    assert (config.model.transformer.embedder, config.clip.frames) == ("tubelet", frames)
    config, _ = chosen(videos, MACHINES["a CPU"], "model.transformer.embedder=light")
    assert config.clip.frames == min(short_frames, 8)
    config, _ = chosen(videos, MACHINES["a CPU"], "clip.frames=5")
    assert config.model.transformer.embedder == "light"


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_choices_follow_from_facts_alone(machine: MachineFacts) -> None:
    config, given = load_given(["clip.size=64"])
    twice = [choose_settings(SETS["UCF101"], machine, config, given) for _ in range(2)]
    assert twice[0] == twice[1]
    assert all(choice.reason for choice in twice[0])


@pytest.mark.parametrize("videos", SETS.values(), ids=SETS)
def test_a_run_on_a_cpu_is_short_and_contrasts_within_the_batch(videos: VideoFacts) -> None:
    config, _ = chosen(videos, MACHINES["a CPU"])
    clips = config.train.epochs * videos.count
    assert 5_000 <= clips <= 15_000
    assert (config.contrast.negatives, config.model.cnn, config.model.width) == ("batch", "r3d10", 0.25)
    assert config.contrast.reversed_weight > 0, "motion comes too late otherwise"


@pytest.mark.parametrize("encoder", ["r3d10", "c3d", "r2plus1d10_official", "video_transformer", "of_another_package"])
def test_a_short_run_tells_the_order_by_feature_maps_where_there_are_any(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS._targets, "of_another_package", MeanColor)
    config, _ = chosen(SETS["HMDB51"], MACHINES["a CPU"], f"model.cnn={encoder}")
    order = (config.model.order_head, config.model.dropout, config.losses["order"])
    if encoder in ("video_transformer", "of_another_package"):
        assert order == ("concatenation", 0.5, 1)
    else:
        assert order == ("difference", 0, 0.3)
    CACL(config)  # the head fits the encoder


def test_what_is_given_of_the_order_holds() -> None:
    config, _ = chosen(SETS["HMDB51"], MACHINES["a CPU"], "losses.order=0")
    assert config.losses["order"] == 0
    _, choices = chosen(SETS["HMDB51"], MACHINES["a CPU"], "model.order_head=concatenation")
    assert not {"model.order_head", "model.dropout", "losses.order"} & set(choices)
    _, choices = chosen(SETS["UCF101"], MACHINES["a GPU"])
    assert not {"model.order_head", "model.dropout", "losses.order"} & set(choices), "a long run is as published"


@pytest.mark.parametrize(
    ("name", "negatives"),
    [("UT-Interaction", "batch"), ("HMDB51", "batch"), ("UCF101", "queue")],
)
def test_a_long_run_on_many_videos_has_the_published_queue(name: str, negatives: str) -> None:
    config, _ = chosen(SETS[name], MACHINES["a GPU"])
    assert config.contrast.negatives == negatives
    if negatives == "queue":
        assert (config.contrast.queue_size, config.contrast.momentum, config.train.batch_size) == (6400, 0.999, 64)
        assert (config.contrast.cross_weight, config.contrast.reversed_weight, config.augment.flip_prob) == (1, 0, 0.5)


def test_larger_clips_make_smaller_batches() -> None:
    for machine in ("a CPU", "a GPU"):
        usual, _ = chosen(SETS["UCF101"], MACHINES[machine])
        large, _ = chosen(SETS["UCF101"], MACHINES[machine], "clip.frames=64", "clip.size=224")
        assert large.train.batch_size < usual.train.batch_size
    small, _ = chosen(SETS["UCF101"], MachineFacts(device="cuda", gpu_memory_gib=8, processes=1))
    assert small.train.batch_size == 16  # 0.35 GiB for each clip


def test_a_step_on_a_cpu_takes_less_than_four_gib() -> None:
    config, _ = chosen(SETS["UCF101"], MACHINES["a CPU"])
    assert config.train.batch_size == 16
    code = f"""
import resource, torch
from cacl.clips import ClipBatch
from cacl.config import from_dict
from cacl.training.train_state import TrainState
config = from_dict({configuration.to_dict(config)!r})
batch, frames, size = config.train.batch_size, config.clip.frames, config.clip.size
state = TrainState(config, 1000, torch.device("cpu"))
order = torch.stack([torch.randperm(frames) for _ in range(batch)]).byte()
views = tuple(torch.rand(2, batch, 3, frames, size, size).half())
number = torch.arange(batch)
state.train_step(ClipBatch(views=views, order=order, video=number, index=number), sync=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.1 < float(done.stdout) < 4
