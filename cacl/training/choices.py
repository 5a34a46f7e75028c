"""Which settings fit a set of videos and a machine: the rules by which `cacl train` without `--config` chooses.

`choose_settings` is a pure function. `choose_config` gathers the facts for it and applies what it chooses.

What stands here as measured was measured on two CPU cores. The values for CUDA have not been tried on a GPU yet: they
are the published ones, or follow from the memory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cacl.config import Config, to_dict
from cacl.registry import ENCODERS


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What the choice depends on of the training videos."""

    count: int
    """The number of training videos."""
    clips_per_epoch: int
    """The number of clips of an epoch, which is that of the videos unless roots have weights."""
    short_frames: int
    """A number of frames that nineteen of twenty videos have."""
    median_frames: int
    """The median of the numbers of frames."""
    short_side: int
    """The median of the shorter sides of the frames, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What the choice depends on of the machine: what it has, and not what happens to be free, which comes and goes."""

    device: Literal["cpu", "cuda"]
    """The kind of the device that is trained on."""
    gpu_memory_gib: float
    """The memory of one GPU, in GiB; 0 on a CPU."""
    processes: int
    """The number of processes that train together."""


class Choice(NamedTuple):
    """A setting that was chosen."""

    key: str
    value: Any
    reason: str
    """Why, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What is chosen for a kind of device, before the videos are looked at."""

    cnn: str
    cnn_width: float
    transformer_width: int
    depth: int
    heads: int
    frames: int
    size: int
    batch_per_process: int
    """The number of clips in the share of a process, where memory and videos allow it."""
    clip_gib: float
    """The memory that one clip of 16 x 112 x 112 takes in a step of these encoders, in GiB."""
    reason: str
    """What these encoders are, in a few words."""


PRESETS = {
    # The encoders are those of the recipes `demo` and `ut_interaction`. Beside what the process needs anyway, a step of
    # 32 clips took 0.26 GiB at 8 x 40 x 40 and 0.47 GiB at 8 x 56 x 56, one of 8 clips 0.95 GiB at 16 x 112 x 112.
    "cpu": Preset(
        cnn="r3d10",
        cnn_width=0.25,
        transformer_width=96,
        depth=2,
        heads=4,
        frames=8,
        size=40,
        batch_per_process=16,
        clip_gib=0.15,
        reason="small enough for two CPU cores",
    ),
    # Clips and batches are the published ones. In fp32 on a CPU, 64 clips took 22 GB with the defaults of the schema,
    # which have a larger transformer. A GPU computes in bf16 and needs less.
    "cuda": Preset(
        cnn="r3d18",
        cnn_width=1.0,
        transformer_width=384,
        depth=4,
        heads=6,
        frames=16,
        size=112,
        batch_per_process=64,
        clip_gib=0.35,
        reason="for a GPU",
    ),
}
"""What is chosen for each kind of device."""

CPU_MEMORY_GIB = 3.0
"""What the clips of a step may take on a CPU, so that the process needs less than 4 GiB."""
GPU_MEMORY_SHARE = 0.8
"""The share of the memory of a GPU that the clips of a step may take."""
PUBLISHED_CLIP = 16 * 112 * 112
"""Pixels of the published clip."""
PUBLISHED_SPAN = 31
"""Frames of the video that the published clip spans, about a second."""
PUBLISHED_QUEUE = 6400
PUBLISHED_EPOCHS = 300
PUBLISHED_STEPS = 45_000
"""The steps that 300 epochs of UCF101 take."""
LONG_RUN_STEPS = 10_000
"""Shorter runs are not what a queue, and key encoders that move by a thousandth in a step, are made for. Runs of
hundreds of steps learn in the form of the recipe `demo` (docs/results.md), longer ones take the published form."""
CPU_CLIPS = 10_000
"""The number of clips that a run on a CPU takes, one after the other and some of them many times."""


def choose_settings(videos: VideoFacts, machine: MachineFacts, config: Config, given: Collection[str]) -> list[Choice]:
    """Chooses the settings that nobody has given.

    Args:
        videos: The facts of the training videos.
        machine: The facts of the machine.
        config: The configuration that holds what was given.
        given: The keys that were given. They stay, and the choices respect their values.

    Returns:
        The choices. None is of a key that was given.
    """
    draft, preset = _Draft(config, given), PRESETS[machine.device]
    _choose_encoders(draft, preset)
    _choose_clip(draft, preset, videos)
    _choose_batch(draft, preset, videos, machine)
    _choose_length(draft, videos, machine)
    _choose_contrast(draft, videos)
    _choose_order(draft, videos)
    _choose_optimizer(draft)
    return list(draft.choices.values())


class _Draft:
    """What was given, and the choices so far."""

    def __init__(self, config: Config, given: Collection[str]) -> None:
        self.config, self.given = to_dict(config), given
        self.choices: dict[str, Choice] = {}

    def choose(self, key: str, value: Any, reason: str) -> Any:
        """Chooses a value, unless the key was given, and returns the one that holds."""
        if key not in self.given:
            self.choices[key] = Choice(key, value, reason)
        return self.value_of(key)

    def value_of(self, key: str) -> Any:
        """Returns the value that was chosen or given, or else the default."""
        if key in self.choices:
            return self.choices[key].value
        value: Any = self.config
        for name in key.split("."):
            value = value[name]
        return value


def _choose_encoders(draft: _Draft, preset: Preset) -> None:
    draft.choose("model.cnn", preset.cnn, preset.reason)
    draft.choose("model.width", preset.cnn_width, preset.reason)
    if draft.value_of("model.transformer.weights"):
        draft.choose("model.transformer.frozen", True, "its weights are pre-trained")
    else:
        odd_frames = "clip.frames" in draft.given and draft.value_of("clip.frames") % 2
        draft.choose(
            "model.transformer.embedder",
            "light" if odd_frames else "tubelet",
            "tokens of two frames would need an even number" if odd_frames else "tokens of two frames tell what moves",
        )
        # Frozen random weights hardly tell videos apart.
        draft.choose("model.transformer.frozen", False, "random weights have to be trained")
    width, heads = preset.transformer_width, preset.heads
    if "model.transformer.heads" in draft.given:
        heads = draft.value_of("model.transformer.heads")
        width = max(1, width // heads) * heads
    width = draft.choose("model.transformer.width", width, preset.reason)
    heads = max(number for number in range(1, heads + 1) if width % number == 0)
    draft.choose("model.transformer.heads", heads, f"they divide the width of {width}")
    draft.choose("model.transformer.depth", preset.depth, preset.reason)


def _choose_clip(draft: _Draft, preset: Preset, videos: VideoFacts) -> None:
    is_c3d = draft.value_of("model.cnn") == "c3d"  # It halves a clip until nothing is left of a smaller one.
    frames = max(min(preset.frames, videos.short_frames), 8 if is_c3d else 2)
    if draft.value_of("model.transformer.embedder") == "tubelet":  # It takes frames in twos.
        frames -= frames % 2
    frames = draft.choose(
        "clip.frames",
        frames,
        f"{preset.reason}; 19 of 20 videos have at least {videos.short_frames}",
    )
    longest = min(PUBLISHED_SPAN, videos.median_frames // 2)
    stride = max((stride for stride in (1, 2, 4) if (frames - 1) * stride < longest), default=1)
    span = (frames - 1) * stride + 1
    draft.choose("clip.stride", stride, f"a clip spans {span} frames of videos with a median of {videos.median_frames}")
    draft.choose(
        "clip.size",
        max(min(preset.size, videos.short_side // 8 * 8), 32 if is_c3d else 16),
        f"{preset.reason}; the short side of the videos is {videos.short_side}",
    )
    draft.choose("augment.crop", [0.7, 1.0], "as in the recipes for small sets")
    # Those of SimCLR (Chen et al., ICML 2020). The defaults leave colours that tell videos apart (docs/results.md).
    colors = "as in SimCLR, so that colours alone do not tell videos apart"
    draft.choose("augment.saturation", 0.8, colors)
    draft.choose("augment.hue", 0.2, colors)


def _choose_batch(draft: _Draft, preset: Preset, videos: VideoFacts, machine: MachineFacts) -> None:
    # Each process, and each of its parts, takes as many whole groups of at least two clips.
    groups_key = "contrast.shuffle_bn_groups"
    parts = machine.processes * draft.value_of("train.gradient_accumulation")
    smallest = 2 * parts * (draft.value_of(groups_key) if groups_key in draft.given else 1)
    memory_gib = machine.gpu_memory_gib * GPU_MEMORY_SHARE if machine.device == "cuda" else CPU_MEMORY_GIB
    clip_gib = preset.clip_gib * draft.value_of("clip.frames") * draft.value_of("clip.size") ** 2 / PUBLISHED_CLIP
    share_limit = min(preset.batch_per_process, int(memory_gib / clip_gib))
    # A batch may go on into the next epoch, which has another order. The larger it is, the likelier is a video twice.
    limit = min(machine.processes * share_limit, videos.count // 3)
    doublings = max(0, (limit // smallest).bit_length() - 1)
    batch_size = draft.choose(
        "train.batch_size",
        smallest * 2**doublings,
        f"at most {share_limit} for each process, and a third of {videos.count} videos",
    )
    share = max(1, batch_size // parts)
    groups = max(number for number in range(1, max(1, share // 8) + 1) if share % number == 0)
    draft.choose(groups_key, groups, "with batch statistics of their own, keys do not give pairs away")


def _choose_length(draft: _Draft, videos: VideoFacts, machine: MachineFacts) -> None:
    if machine.device == "cpu":
        clips, reason = CPU_CLIPS, f"{CPU_CLIPS:,} clips, minutes to tens of minutes with small encoders"
        draft.choose("train.checkpoint_every", 100, "steps take long")
    else:
        clips = min(PUBLISHED_EPOCHS * videos.clips_per_epoch, PUBLISHED_STEPS * draft.value_of("train.batch_size"))
        reason = f"as published, but at most {PUBLISHED_STEPS:,}"
    epochs = _rounded(clips / videos.clips_per_epoch)
    if draft.value_of("optim.schedule_per") == "epoch":  # It needs whole epochs, and two of them.
        epochs = max(2.0, float(round(epochs)))
    steps = epochs * videos.clips_per_epoch / draft.value_of("train.batch_size")
    draft.choose("train.epochs", epochs, f"{steps:,.0f} steps: {reason}")


def _steps(draft: _Draft, videos: VideoFacts) -> float:
    return draft.value_of("train.epochs") * videos.clips_per_epoch / draft.value_of("train.batch_size")


def _choose_contrast(draft: _Draft, videos: VideoFacts) -> None:
    steps = _steps(draft, videos)
    encoders = 1 if draft.value_of("contrast.pairs") in ("cnn", "transformer") else 2
    # Each encoder gives the queue a key of each video, so that these reach back by half an epoch.
    queue_size = min(PUBLISHED_QUEUE, max(1, videos.count * encoders // 2))
    is_long = steps >= LONG_RUN_STEPS
    if is_long and queue_size == PUBLISHED_QUEUE:
        negatives, reason = "queue", "as published"
    elif is_long:
        negatives, reason = "batch", f"a queue of {PUBLISHED_QUEUE} reaches back to the same of {videos.count} videos"
    else:
        negatives, reason = "batch", f"{steps:,.0f} steps are too few for a queue"
    if draft.choose("contrast.negatives", negatives, reason) != "batch":
        draft.choose(
            "contrast.queue_size", queue_size, f"reaches back by half an epoch of {videos.count} videos at most"
        )
    if is_long:
        draft.choose("contrast.momentum", 0.999, f"as published, for {steps:,.0f} steps")
        draft.choose("contrast.temperature", 0.07, "as published")
    else:
        reason = f"as in the recipe demo, for {steps:,.0f} steps"
        draft.choose("contrast.momentum", 0.95, reason)
        draft.choose("contrast.temperature", 0.1, reason)
        draft.choose("contrast.cross_weight", 0.6, reason)
        draft.choose("contrast.reversed_weight", 0.3, "motion is learnt early from clips played backwards")
    if draft.value_of("contrast.reversed_weight") > 0:
        draft.choose("augment.flip_prob", 0.0, "mirrored clips would contradict those played backwards")
    else:
        draft.choose("augment.flip_prob", 0.5, "set it to 0 where left and right are to be told apart")


def _choose_order(draft: _Draft, videos: VideoFacts) -> None:
    if _steps(draft, videos) >= LONG_RUN_STEPS:
        return  # The defaults of the schema are as published.
    cnn = draft.value_of("model.cnn")
    if ENCODERS.is_own(cnn) and cnn != "video_transformer":  # Others need not have the feature maps that it compares.
        draft.choose("model.order_head", "difference", "the published one learns nothing in so few steps")
    if draft.value_of("model.order_head") == "difference":
        draft.choose("model.dropout", 0.0, "as in the recipe demo")
        draft.choose("losses.order", 0.3, "as in the recipe demo")


def _choose_optimizer(draft: _Draft) -> None:
    if "optim.name" not in draft.given:
        draft.choose("optim.name", "adamw", "trains the transformer from random weights")
        draft.choose("optim.lr", 1e-3, "for AdamW")
        draft.choose("optim.weight_decay", 1e-2, "for AdamW")
    if draft.value_of("optim.schedule_per") == "step":
        draft.choose(
            "optim.warmup_epochs", _rounded(0.05 * draft.value_of("train.epochs")), "a twentieth of the epochs"
        )
    draft.choose("optim.max_grad_norm", 5.0, "cuts off what would throw the weights out of their range")


def _rounded(value: float) -> float:
    """Returns a number with four digits that count."""
    return float(f"{value:.4g}")
