"""The configuration of a run: one frozen dataclass per section, read from TOML, checked at once, written back in full.

    config = load(Path("cacl/recipes/demo.toml"), overrides=["optim.lr=0.1"])

Every value has one home here, with its meaning beside it. Unknown keys are errors that name the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from cacl.errors import ConfigError

T = TypeVar("T")

# Strict: TOML tells numbers from strings and booleans, so nothing needs guessing.
Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]

Init = Literal["normal", "torch"]


def _backend_name(value: object) -> object:
    return "cpu" if value == "host" else value


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    cls.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]  # pydantic reads it; its default ignores unknown keys
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


@section
class DataConfig:
    root: str = ""
    """A folder of videos, or a list of them: a CSV or text file with a video on each line."""
    layout: Literal["auto", "ucf101", "hmdb51", "kinetics", "classes", "csv", "folder"] = "auto"
    """How labels and splits are told; `auto` recognises lists, and folders of splits and of classes."""
    fold: Positive = 1
    """Which of the official splits (UCF101 and HMDB51 have three)."""
    test_share: Share = 0.0
    """Share of each class held out as test where no list says which videos are; drawn from the names, so it stays."""
    max_rejected: Share = 0.1
    """Stop when more than this share of the videos found cannot be used."""
    cache: str = ""
    """Folder for scan results; empty: the user's cache folder."""


@section
class ClipConfig:
    frames: Annotated[int, Field(ge=2, le=255, strict=True)] = 16
    """T: frames in a clip."""
    stride: Positive = 2
    """Frames of the video from one clip frame to the next. Shorter videos take the largest stride that fits."""
    min_remaining_frames: Count = 0
    """Training clips start where so many frames of the video are left, and videos with fewer are left out; 0: as many
    as the clip spans, and shorter videos stay (see stride). Published is 46, for a span of 31."""
    size: Annotated[int, Field(ge=16, strict=True)] = 112
    """Height and width of a view, in pixels."""

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last of a clip, both included."""
        return (self.frames - 1) * self.stride + 1

    @property
    def min_frames(self) -> int:
        """The fewest frames that a training video may have."""
        return max(self.frames, self.min_remaining_frames)


@section
class AugmentConfig:
    resize: tuple[Count, Count] = (0, 0)
    """Height and width that the whole frame is resized to before the crop, whatever its aspect, in 8 bits as Pillow
    does it; [0, 0] keeps the frame as it is. Published is [128, 171], which shows more of a wide video's width. Not
    with the `dali` backend."""
    crop: tuple[AboveZero, AboveZero] = (0.875, 0.875)
    """Side of the square crop as a share of the short side, drawn between these two; published is 112/128."""
    flip_prob: Share = 0.5
    """Probability of mirroring left and right."""
    brightness: Share = 0.4
    """Strength b: brightness is multiplied by a factor between 1 - b and 1 + b."""
    contrast: Share = 0.4
    """Strength, likewise."""
    saturation: Share = 0.4
    """Strength, likewise."""
    hue: Annotated[float, Field(ge=0, le=0.5, strict=True)] = 0.1
    """Turns of the colour circle, either way."""
    color_jitter_prob: Share = 0.8
    """Probability that the four above are applied."""
    grayscale_prob: Share = 0.2
    """Probability of dropping the colour."""
    arithmetic: Literal["linear", "pillow"] = "linear"
    """`linear` composes the colour steps into one matrix: in the order above, contrast about mid-grey, not clamped.
    `pillow` is the published form: in random order, in 8 bits, clamped after each, contrast about the mean grey of each
    frame, hue in HSV. Not with the `dali` backend."""


@section
class LoaderConfig:
    backend: Annotated[Literal["auto", "cpu", "dali", "reference"], BeforeValidator(_backend_name)] = "auto"
    """`dali` decodes and augments on the GPU, `cpu` on the CPU; `reference` is the slow, readable form. `host` is
    another name of `cpu`."""
    threads: Count = 0
    """Decoding threads per process; 0: the cores of the machine shared among its processes, or 16 for a remote set."""
    prefetch: Positive = 3
    """Batches decoded ahead of the training step."""
    dali_pipelines: Positive = 2
    """Pipelines of `dali` that take turns; one does not keep all decoders of a GPU busy."""
    dali_views: Literal["dali", "triton"] = "dali"
    """What makes the views of decoded frames in `dali`: its own operators, or one kernel of ours. Other backends do not
    look at this. Neither has been timed on a GPU yet."""
    on_failure: Literal["skip", "fail"] = "skip"
    """When a file fails that was in order before training: leave its clip out, name it and count it, or stop."""


@section
class TransformerConfig:
    embedder: str = "resnet50"
    """Turns a frame into a token: any timm model by name, or `light`, a small convolutional stem."""
    weights: str = ""
    """File with the embedder's weights (.safetensors or .pth); empty: random."""
    frozen: bool = True
    """Keep the embedder fixed, in evaluation mode (the published recipe, with pre-trained weights)."""
    width: Positive = 768
    """Length of a token."""
    depth: Positive = 6
    """Blocks."""
    heads: Positive = 6
    """Attention heads in a block; they divide the width."""
    normalize: bool = True
    """Bring frames to the mean and deviation that the timm model states; published is false. `light` never does."""


@section
class ModelConfig:
    cnn: Literal["c3d", "r3d10", "r3d18", "r3d34", "r2plus1d10", "r2plus1d10_official", "r2plus1d18"] = "r3d18"
    """The 3D CNN. R(2+1)D as Tran et al. have it, or `_official`, as the release of the method has it."""
    width: AboveZero = 1.0
    """Multiplier of every channel count of the CNN; 1 ends in a 512-d average pool."""
    embedding_dim: Positive = 128
    """D: length of the contrasted embeddings."""
    dropout: Share = 0.5
    """In the order head."""
    init: Init = "normal"
    """What convolutions of the CNN and linear layers of the transformer start from: `normal` as He et al. (2015) and
    Dosovitskiy et al. (2021), `torch` as torch draws them if nothing is said, which is published. Under batch norm
    the larger weights of `normal` learn more slowly at the same rate."""
    transformer: TransformerConfig = TransformerConfig()


@section
class ContrastConfig:
    pairs: Literal["cross", "official", "within", "cnn", "transformer", "none"] = "cross"
    """Which positives count: see `cacl.method.losses`. `none` trains on the frame order alone."""
    negatives: Literal["queue", "batch", "both"] = "queue"
    """What positives are held against: keys of earlier videos, as published; the other videos of the batch, of all
    processes, where both sides of a pair learn; or the mean of both losses."""
    weight: NonNegative = 1.0
    """Weight of the contrast."""
    temperature: AboveZero = 0.07
    """T: similarities are divided by it."""
    queue_size: Positive = 6400
    """K: keys of earlier videos kept as negatives."""
    momentum: Share = 0.999
    """m: how much of the key encoders stays at each step."""
    shuffle_bn_groups: Positive = 1
    """Shuffled batch norm: key batches are permuted and normalised in this many groups per process, so that batch
    statistics do not give a pair away."""
    key_batch_order: Literal["same", "reversed"] = "same"
    """`reversed`: key encoders see the shuffled copy before the clip, as published; query encoders never do."""


@section
class OrderConfig:
    weight: NonNegative = 1.0
    """Weight of the edit-distance classification; 0 leaves it out."""


@section
class OptimConfig:
    name: str = "sgd"
    """Any optimiser of timm's factory: sgd (Nesterov), momentum (plain), adamw, lars, lamb, ..."""
    lr: AboveZero = 0.01
    """For the whole batch, as given: it is not scaled by the batch size."""
    momentum: Share = 0.9
    """Of the gradients, for optimisers that have one."""
    weight_decay: NonNegative = 1e-4
    """On all trained parameters."""
    warmup_epochs: NonNegative = 0.0
    """Linear, from 0 to lr; cosine to 0 afterwards."""
    schedule_per: Literal["step", "epoch"] = "step"
    """How often the cosine goes down. `epoch` is published: epochs count from 1, and the rate of the last is 0."""
    max_grad_norm: NonNegative = 0.0
    """Largest norm of the whole gradient; 0: no limit."""


@section
class TrainConfig:
    epochs: AboveZero = 300.0
    """Passes over the training videos."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 64
    """Videos per step, over all processes together."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs the encoders under autocast; losses and weights stay fp32. auto: bf16 on CUDA, fp32 elsewhere."""
    compile: bool = False
    """Compile the encoders with torch.compile."""
    log_every: Positive = 20
    """Steps between two log lines; only these steps wait for the device."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints; one is written at the end in any case."""


@section
class RetrievalConfig:
    clips_per_video: Positive = 10
    """Evenly spaced clips per video, whose features are averaged."""
    clip_starts: Literal["span", "official"] = "span"
    """`span`: from the first frame to the last, rounded. `official`: the last clip starts T x stride frames before the
    end, starts are rounded down, and videos too short for the stride are seen at stride 1, from their first frame."""
    batch_size: Positive = 16
    """Clips per forward pass."""


@section
class Config:
    name: str = "cacl"
    """For people."""
    run: str = "runs/cacl"
    """Folder of this run: resolved configuration, logs, checkpoints, features."""
    seed: Count = 0
    """Decides everything random: weights, clips, augmentation, dropout."""
    data: DataConfig = DataConfig()
    clip: ClipConfig = ClipConfig()
    augment: AugmentConfig = AugmentConfig()
    loader: LoaderConfig = LoaderConfig()
    model: ModelConfig = ModelConfig()
    contrast: ContrastConfig = ContrastConfig()
    order: OrderConfig = OrderConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    retrieval: RetrievalConfig = RetrievalConfig()


def load(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file (or only the defaults), applies `section.key=value` overrides and validates the whole.

    Raises ConfigError with one line per problem.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    for text in overrides:
        _set(values, text)
    return from_dict(values)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with some keys set anew. Raises ConfigError."""
    values = to_dict(config)
    for text in overrides:
        _set(values, text)
    return from_dict(values)


def from_dict(values: dict[str, Any]) -> Config:
    """Validates plain nested values, as TOML or a checkpoint hold them."""
    try:
        config = TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e) for e in error.errors())) from None
    problems = list(_contradictions(config))
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def to_dict(config: Config) -> dict[str, Any]:
    return dataclasses.asdict(config)


def to_toml(config: Config) -> str:
    """The resolved configuration; `load` reads it back to an equal one."""
    return "\n".join(_toml_table("", to_dict(config))).lstrip("\n") + "\n"


def differences(old: Config, new: Config) -> list[str]:
    """`key: old -> new` for every leaf in which the two differ."""
    before, after = dict(_leaves(to_dict(old))), dict(_leaves(to_dict(new)))
    return [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def _contradictions(config: Config) -> Iterator[str]:
    """Rules that join two keys."""
    augment, clip, transformer = config.augment, config.clip, config.model.transformer
    low, high = augment.crop
    if low > high or high > 1:
        yield f"augment.crop = [{low}, {high}]: give two shares of the short side, the smaller first, at most 1"
    if any(augment.resize) and not all(augment.resize):
        yield f"augment.resize = {list(augment.resize)}: give height and width, or [0, 0] to keep frames as they are"
    if config.loader.backend == "dali" and any(augment.resize):
        yield f'augment.resize = {list(augment.resize)}: loader.backend = "dali" cannot do that, "cpu" can'
    if config.loader.backend == "dali" and augment.arithmetic != "linear":
        yield f'augment.arithmetic = "{augment.arithmetic}": loader.backend = "dali" cannot do that, "cpu" can'
    if 0 < clip.min_remaining_frames < clip.span:
        yield (
            f"clip.min_remaining_frames = {clip.min_remaining_frames} is shorter than a clip: clip.frames = {clip.frames} at clip.stride = "
            f"{clip.stride} span {clip.span}"
        )
    if transformer.width % transformer.heads:
        yield (
            f"model.transformer.width = {transformer.width} is not a multiple of "
            f"model.transformer.heads = {transformer.heads}"
        )
    if config.contrast.pairs == "none" and config.order.weight == 0:
        yield 'contrast.pairs = "none" with order.weight = 0 leaves nothing to train on: raise order.weight'
    if config.contrast.pairs == "transformer" and config.order.weight > 0:
        yield 'contrast.pairs = "transformer" trains no CNN, which order.weight > 0 needs: set order.weight = 0'
    if (
        config.train.batch_size % config.contrast.shuffle_bn_groups
        or config.train.batch_size == config.contrast.shuffle_bn_groups
    ):
        yield (
            f"contrast.shuffle_bn_groups = {config.contrast.shuffle_bn_groups} must divide train.batch_size = {config.train.batch_size} "
            "into groups of at least 2"
        )
    if config.optim.schedule_per == "epoch" and config.optim.warmup_epochs > 0:
        warmup = config.optim.warmup_epochs
        yield f'optim.warmup_epochs = {warmup}: optim.schedule_per = "epoch" has no warm-up, set it to 0'
    if config.optim.schedule_per == "epoch" and (config.train.epochs % 1 > 0 or config.train.epochs < 2):
        yield (
            f'train.epochs = {config.train.epochs}: optim.schedule_per = "epoch" needs a whole number, at least 2, as '
            "the rate of the last epoch is 0"
        )
    if config.model.cnn == "c3d" and (config.clip.frames < 8 or config.clip.size < 32):
        yield (
            f"clip.frames = {config.clip.frames}, clip.size = {config.clip.size}: c3d halves them until nothing is "
            "left; it needs at least 8 frames of 32 pixels"
        )


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: write it as section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string: --set model.cnn=r3d18
    *sections, leaf = key.strip().split(".")
    for depth, name in enumerate(sections):
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {'.'.join(sections[: depth + 1])} is a value, not a section")
    values[leaf] = value


def _explain(error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        return f"{key}: no such key; {_nearest(path)}"
    message = error["msg"].removeprefix("Input ")
    return f"{key} = {error['input']!r}: {message}"


def _nearest(path: Sequence[str]) -> str:
    """The way out for an unknown key: its nearest relative in the same section, elsewhere, or the whole section."""
    known = [key.split(".") for key, _ in _leaves(dataclasses.asdict(Config()), sections=True)]
    siblings = [key for key in known if key[:-1] == list(path[:-1])]
    for candidates in (siblings, known) if len(path) > 1 else (known,):
        names = {key[-1]: key for key in reversed(candidates)}
        near = difflib.get_close_matches(path[-1], names, 1)
        if near:
            return f"did you mean {'.'.join(names[near[0]])}?"
    if len(path) > 1:
        return f"{'.'.join(path[:-1])} has {', '.join(key[-1] for key in siblings)}"
    return f"there are {', '.join(key[-1] for key in siblings)}"


def _leaves(values: dict[str, Any], prefix: str = "", *, sections: bool = False) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            if sections:
                yield prefix + name, value
            yield from _leaves(value, f"{prefix}{name}.", sections=sections)
        else:
            yield prefix + name, value


def _toml_table(name: str, values: dict[str, Any]) -> Iterator[str]:
    if name:
        yield f"\n[{name}]"
    for key, value in values.items():
        if not isinstance(value, dict):
            yield f"{key} = {_toml_value(value)}"
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _toml_table(f"{name}.{key}" if name else key, value)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML escapes as JSON does, and one character more.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)
