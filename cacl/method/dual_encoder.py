"""The two encoders with their heads, as one module: it is what is trained, and what has a momentum copy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cacl.config import ClipConfig, Config
from cacl.errors import ConfigError
from cacl.method.losses import Loss
from cacl.models.recompute import set_checkpointing
from cacl.registry import ENCODERS
from cacl.stages import stage

Argument = TypeVar("Argument")
Module = TypeVar("Module", bound=nn.Module)


class DualEncoder(nn.Module):
    """Two encoders that look at a clip and its shuffled copy, and the heads that the losses put on them.

    The CNN, which may be any registered encoder, sees the two one after the other; the video transformer sees them at
    once. An encoder that no loss needs is not built, and is None.

    Args:
        config: The configuration of the run.
        losses: The losses by name.
    """

    def __init__(self, config: Config, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        required = {encoder for name, loss in losses.items() for encoder in _encoders_of(name, loss)}
        self.cnn = _build(ENCODERS.load(config.model.cnn), config) if "cnn" in required else None
        if self.cnn is not None and not hasattr(self.cnn, "num_features"):
            raise ConfigError(f"model.cnn = {config.model.cnn}: has no num_features, the length of its feature vector")
        lengths = dict.fromkeys(losses, 2 * self.cnn.num_features if self.cnn else 0)
        self.comparing = {name for name, loss in losses.items() if getattr(loss, "compares_maps", False)}
        if self.comparing:
            if not (hasattr(self.cnn, "forward_stages") and hasattr(self.cnn, "pool")):
                raise ConfigError(
                    f"losses.{min(self.comparing)}: compares the feature maps of all stages, and model.cnn = "
                    f"{config.model.cnn} has no methods `forward_stages` and `pool`"
                )
            lengths |= dict.fromkeys(self.comparing, _count_channels_and_frames(self.cnn, config.clip))
        self.cnn_heads = _make_heads(losses, "cnn", lengths)
        self.transformer = _build(ENCODERS.load("video_transformer"), config) if "transformer" in required else None
        length = self.transformer.num_features if self.transformer else 0
        self.transformer_heads = _make_heads(losses, "transformer", dict.fromkeys(losses, length))
        if config.train.activation_checkpointing:
            for encoder, name in ((self.cnn, config.model.cnn), (self.transformer, "video_transformer")):
                if encoder is not None:
                    set_checkpointing(encoder, name)

    def forward(self, clips: Tensor, order: Tensor) -> dict[str, dict[str, Tensor]]:
        """Encodes clips together with their shuffled copies.

        Args:
            clips: float32 [B, 3, T, H, W], RGB in about [0, 1], with the frames in true order.
            order: Integers [B, T]. Frame i of the shuffled copy is frame order[i] of the clip.

        Returns:
            What the heads give, by loss and then by encoder (`cnn`, `transformer`), each [B, ...].
        """
        outputs: dict[str, dict[str, Tensor]] = {}
        if self.cnn is not None:
            with stage("cnn"):
                # Two passes, not one of twice the batch: the copy has batch statistics of its own, as in the paper.
                both = clips, shuffle_frames(clips, order)
                maps: list[list[Tensor]] = []
                if self.comparing & set(self.cnn_heads):
                    maps = [self.cnn.forward_stages(x) for x in both]
                features = torch.cat([self.cnn.pool(x[-1]) for x in maps] or [self.cnn(x) for x in both], dim=1)
                for loss, head in self.cnn_heads.items():
                    outputs.setdefault(loss, {})["cnn"] = head(*maps) if loss in self.comparing else head(features)
        if self.transformer is not None:
            with stage("transformer"):
                features = self.transformer(clips, order)
                for loss, head in self.transformer_heads.items():
                    outputs.setdefault(loss, {})["transformer"] = head(features)
        return outputs

    def keep_heads_of(self, loss: str) -> None:
        """Drops the heads of all other losses, and the encoders that are left without one.

        Args:
            loss: The name of the loss.
        """
        for heads in (self.cnn_heads, self.transformer_heads):
            for other in set(heads) - {loss}:
                del heads[other]
        if loss not in self.cnn_heads:
            self.cnn = None
        if loss not in self.transformer_heads:
            self.transformer = None


def _encoders_of(name: str, loss: Loss) -> Collection[str]:
    """The encoders that a loss asks for, which have to exist."""
    if isinstance(loss.encoders, str) or not set(loss.encoders) <= {"cnn", "transformer"}:
        raise ConfigError(f"losses.{name}: encoders = {loss.encoders!r}: has to be a tuple of `cnn` and `transformer`")
    return loss.encoders


def _make_heads(losses: Mapping[str, Loss], encoder: str, num_features: Mapping[str, int]) -> nn.ModuleDict:
    return nn.ModuleDict(
        {name: _build(loss.make_head, num_features[name]) for name, loss in losses.items() if encoder in loss.encoders}
    )


def _build(make: Callable[[Argument], Module], argument: Argument) -> Module:
    """Makes a part of the network, whose weights are the same whichever other parts there are.

    Each part begins at the same random state. If one went on where another ended, a run that leaves out a loss would
    begin at other weights, and its difference to the run with it would be that of another seed, too.
    """
    with torch.random.fork_rng(devices=[]):
        return make(argument)


@torch.no_grad()
def _count_channels_and_frames(cnn: Any, clip: ClipConfig) -> int:
    """Returns the sum of C * T' over the stages of a CNN, by a clip of zeros that leaves its batch statistics alone."""
    maps = cnn.eval().forward_stages(torch.zeros(1, 3, clip.frames, clip.size, clip.size))
    cnn.train()
    return sum(x.shape[1] * x.shape[2] for x in maps)


def shuffle_frames(clips: Tensor, order: Tensor) -> Tensor:
    """Puts the frames of each clip in its order.

    A view has one augmentation for all of its frames, so shuffling the view equals augmenting the shuffled clip.

    Args:
        clips: [B, C, T, H, W] of any dtype.
        order: Integers [B, T]. Frame i of the result is frame order[i] of the clip.

    Returns:
        The shuffled clips, [B, C, T, H, W] of the same dtype.
    """
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    return clips.transpose(1, 2)[rows, order.long()].transpose(1, 2)
