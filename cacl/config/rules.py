"""What contradicts what: the rules that join two keys of a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from cacl.config.data_schema import DataConfig
from cacl.config.schema import Config


def contradictions(config: Config) -> Iterator[str]:
    """Finds the keys that do not go together.

    Args:
        config: A configuration in which each key has a valid value.

    Yields:
        A line for each contradiction, which names the keys, their values and the way out.
    """
    yield from contradicting_roots(config.data)
    yield from _of_clips(config)
    yield from _of_method(config)
    yield from _of_schedule(config)
    yield from _of_finetuning(config)
    yield from _of_c3d(config)
    yield from _of_loggers(config)
    yield from _of_profile(config)


def contradicting_roots(data: DataConfig) -> Iterator[str]:
    """Finds what does not go together among the keys that name the videos.

    Args:
        data: The keys, each with a valid value.

    Yields:
        A line for each contradiction.
    """
    defaults = DataConfig()
    if not data.roots:
        return
    for name in ("root", "layout", "fold", "test_share"):
        if getattr(data, name) != getattr(defaults, name):
            yield (
                f"data.{name} = {getattr(data, name)!r}: with data.roots each root has its own; leave it out, or set "
                "data.roots = []"
            )
    names = [root.root for root in data.roots]
    for number, name in enumerate(names):
        if not name:
            yield f"data.roots.{number}.root is not set: name a folder of videos, a list of them, or a prepared set"
        elif name in names[:number]:
            yield f"data.roots.{number}.root = {name!r} is root {names.index(name)} too: name it once, with one weight"


def _of_clips(config: Config) -> Iterator[str]:
    augment, clip = config.augment, config.clip
    low, high = augment.crop
    if low > high or high > 1:
        yield f"augment.crop = [{low}, {high}]: give two shares of the short side, the smaller first, at most 1"
    if any(augment.resize) and not all(augment.resize):
        yield f"augment.resize = {list(augment.resize)}: give height and width, or [0, 0] to keep frames as they are"
    if config.loader.backend == "dali" and any(augment.resize):
        yield f'augment.resize = {list(augment.resize)}: loader.backend = "dali" cannot do that, "cpu" can'
    if config.loader.backend == "dali" and augment.color_arithmetic != "linear":
        arithmetic = augment.color_arithmetic
        yield f'augment.color_arithmetic = "{arithmetic}": loader.backend = "dali" cannot do that, "cpu" can'
    if 0 < clip.min_remaining_frames < clip.span:
        yield (
            f"clip.min_remaining_frames = {clip.min_remaining_frames} is shorter than a clip: clip.frames = "
            f"{clip.frames} at clip.stride = {clip.stride} span {clip.span}"
        )


def _of_method(config: Config) -> Iterator[str]:
    transformer, batch_size = config.model.transformer, config.train.batch_size
    if transformer.width % transformer.heads:
        yield (
            f"model.transformer.width = {transformer.width} is not a multiple of "
            f"model.transformer.heads = {transformer.heads}"
        )
    if transformer.embedder == "tubelet" and config.clip.frames % 2:
        yield (
            f'clip.frames = {config.clip.frames} is odd: model.transformer.embedder = "tubelet" makes a token of two '
            "frames"
        )
    if not any(config.losses.values()):
        yield f"losses = {config.losses}: nothing is left to train on; give one a weight above 0"
    groups, parts = config.contrast.shuffle_bn_groups, config.train.gradient_accumulation
    if batch_size % (groups * parts) or batch_size == groups * parts:
        each = f" times train.gradient_accumulation = {parts}" if parts > 1 else ""
        yield (
            f"contrast.shuffle_bn_groups = {groups}{each} must divide train.batch_size = {batch_size} into groups of "
            "at least 2"
        )


def _of_schedule(config: Config) -> Iterator[str]:
    optim, epochs = config.optim, config.train.epochs
    if optim.schedule_per == "epoch" and optim.warmup_epochs > 0:
        warmup = optim.warmup_epochs
        yield f'optim.warmup_epochs = {warmup}: optim.schedule_per = "epoch" has no warm-up, set it to 0'
    if optim.schedule_per == "epoch" and (epochs % 1 > 0 or epochs < 2):
        yield (
            f'train.epochs = {epochs}: optim.schedule_per = "epoch" needs a whole number, at least 2, as the rate of '
            "the last epoch is 0"
        )


def _of_finetuning(config: Config) -> Iterator[str]:
    finetune = config.finetune
    if finetune.last_lr > 0 and finetune.layer_decay < 1:
        yield (
            f"finetune.last_lr = {finetune.last_lr} and finetune.layer_decay = {finetune.layer_decay} both give layers "
            "a learning rate: set the first to 0 or the second to 1.0"
        )


def _of_c3d(config: Config) -> Iterator[str]:
    clip = config.clip
    if config.model.cnn == "c3d" and (clip.frames < 8 or clip.size < 32):
        yield (
            f"clip.frames = {clip.frames}, clip.size = {clip.size}: c3d halves them until nothing is left; it needs "
            "at least 8 frames of 32 pixels"
        )


def _of_loggers(config: Config) -> Iterator[str]:
    loggers = config.train.loggers
    if len(set(loggers)) < len(loggers):
        yield f"train.loggers = {list(loggers)}: name each of them once"


def _of_profile(config: Config) -> Iterator[str]:
    first, last = config.profile.steps
    if first >= last:
        yield f"profile.steps = [{first}, {last}]: no step lies between them; let the second be larger"
