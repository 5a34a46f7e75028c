"""The two encoders with their heads, as one module: what is trained, and what has a momentum copy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cacl.config import Config
from cacl.method.losses import encoders_of
from cacl.models import CNNS, ContrastHead, OrderHead, VideoTransformer


class DualEncoder(nn.Module):
    """A 3D CNN and a video transformer over a clip and its shuffled copy; only the parts that the losses need."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model, pairs, frames = config.model, config.contrast.pairs, config.clip.frames
        wants_cnn, wants_transformer = encoders_of(pairs, config.order.weight)
        self.cnn = CNNS[model.cnn](model.width, model.init) if wants_cnn else None
        self.cnn_head = self.order_head = self.transformer = self.transformer_head = None
        if self.cnn is not None:
            channels = self.cnn.out_channels
            if pairs != "none":
                self.cnn_head = ContrastHead(2 * channels, model.embedding)
            if config.order.weight > 0:
                self.order_head = OrderHead(2 * channels, channels, frames, model.dropout)
        if wants_transformer:
            self.transformer = VideoTransformer(model.transformer, frames, model.init)
            self.transformer_head = ContrastHead(self.transformer.out_channels, model.embedding)

    def forward(self, clips: Tensor, order: Tensor) -> dict[str, Tensor]:
        """clips: [B, 3, T, H, W], order: [B, T]. Returns unit embeddings `f` and `t` [B, D], `order` logits [B, T]."""
        out = {}
        if self.cnn is not None:
            # Two passes, not one of twice the batch: the copy has batch statistics of its own, as in the paper.
            features = torch.cat([self.cnn(clips), self.cnn(shuffle_frames(clips, order))], dim=1)
            if self.cnn_head is not None:
                out["f"] = self.cnn_head(features)
            if self.order_head is not None:
                out["order"] = self.order_head(features)
        if self.transformer is not None and self.transformer_head is not None:
            out["t"] = self.transformer_head(self.transformer(clips, order))
        return out


def shuffle_frames(clips: Tensor, order: Tensor) -> Tensor:
    """The frames of each clip [B, C, T, H, W] in its order [B, T].

    A view has one augmentation for all frames, so shuffling the view equals augmenting the shuffled clip.
    """
    rows = torch.arange(len(clips), device=clips.device)[:, None]
    return clips.transpose(1, 2)[rows, order.long()].transpose(1, 2)
