"""The two encoders with their heads, as one module: it is what is trained, and what has a momentum copy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cacl.config import Config
from cacl.method.pairs import required_encoders
from cacl.models.heads import ContrastHead, OrderHead
from cacl.models.registry import CNNS
from cacl.models.video_transformer import VideoTransformer


class DualEncoder(nn.Module):
    """A 3D CNN and a video transformer that both look at a clip and its shuffled copy.

    Only the parts that the losses need are built; the others are None.

    Args:
        config: The configuration of the run.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        model, pairs, frames = config.model, config.contrast.pairs, config.clip.frames
        required = required_encoders(pairs, config.order.weight)
        self.cnn = CNNS[model.cnn](model.width, model.init) if required.cnn else None
        self.cnn_head = self.order_head = self.transformer = self.transformer_head = None
        if self.cnn is not None:
            features = self.cnn.num_features
            if pairs != "none":
                self.cnn_head = ContrastHead(2 * features, model.embedding_dim)
            if config.order.weight > 0:
                self.order_head = OrderHead(2 * features, features, frames, model.dropout)
        if required.transformer:
            self.transformer = VideoTransformer(model.transformer, frames, model.init)
            self.transformer_head = ContrastHead(self.transformer.num_features, model.embedding_dim)

    def forward(self, clips: Tensor, order: Tensor) -> dict[str, Tensor]:
        """Encodes clips together with their shuffled copies.

        Args:
            clips: float32 [B, 3, T, H, W], RGB in about [0, 1], with the frames in true order.
            order: Integers [B, T]. Frame i of the shuffled copy is frame order[i] of the clip.

        Returns:
            What the parts that were built give: `f`, the unit embeddings [B, D] of the CNN; `t`, those of the
            transformer; `order`, the logits [B, T] of the order head.
        """
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
