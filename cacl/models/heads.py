"""The heads that stand on the encoders in training: one for contrast, two for the frame order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ContrastHead(nn.Module):
    """A linear layer whose output is scaled to length 1: the embedding that is contrasted.

    Args:
        num_features: The length F of the features.
        embedding_dim: The length D of the embeddings.
    """

    def __init__(self, num_features: int, embedding_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(num_features, embedding_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Embeds features.

        Args:
            features: Floats [B, F].

        Returns:
            Unit vectors, float32 [B, D], or float64 where the features are. Under autocast they are float32, too.
        """
        embedding = self.project(features)
        # Autocast leaves half precision here, which is too coarse to scale: at a temperature of 0.07 errors grow
        # 14-fold.
        embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        return F.normalize(embedding, dim=-1)


class OrderHead(nn.Sequential):
    """A classifier of the edit distance between the frame order of a shuffled clip and the true one.

    It maps features [B, F] to logits [B, classes]. The features are those of the CNN for the clip and for its shuffled
    copy, concatenated, and there are T classes for clips of T frames (`cacl.method.losses.order_classes`).

    Args:
        num_features: The length F of the concatenated features.
        hidden: The width of the hidden layer; the method takes the length of one of the two features.
        classes: The number of classes.
        dropout: The probability with which a hidden unit is dropped.
    """

    def __init__(self, num_features: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(num_features, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )


class OrderDifferenceHead(nn.Module):
    """A classifier of the same classes, by how much each stage of the CNN answers otherwise to the shuffled copy.

    Batch norm and two linear layers stand on the relative differences of the feature maps of all stages. Maps are
    compared position by position, before any pooling: what a shuffled clip changes has another sign at each position,
    and a mean over the positions takes most of it away.

    Args:
        num_features: The number of relative differences, one for each channel and frame of the map of each stage.
        classes: The number of classes.
        dropout: The probability with which a hidden unit is dropped.
    """

    HIDDEN = 128
    """The width of the hidden layer."""

    def __init__(self, num_features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(num_features),
            nn.Linear(num_features, self.HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(self.HIDDEN, classes),
        )

    def forward(self, clip_maps: Sequence[Tensor], shuffled_maps: Sequence[Tensor]) -> Tensor:
        """Classifies pairs of clips by their feature maps.

        Args:
            clip_maps: The map of each stage for the clips, floats [B, C, T', H', W'].
            shuffled_maps: Those for their shuffled copies, of the same shapes.

        Returns:
            The logits, floats [B, classes].
        """
        pairs = zip(clip_maps, shuffled_maps, strict=True)
        return self.layers(torch.cat([relative_difference(x, y).flatten(1) for x, y in pairs], 1))


def relative_difference(x: Tensor, y: Tensor) -> Tensor:
    """Computes the dissimilarity of Bray and Curtis of two feature maps: sum |x - y| / sum (|x| + |y|), over space.

    Args:
        x: Floats [B, C, T', H', W'].
        y: Floats of the same shape.

    Returns:
        Float32 [B, C, T'], or float64 where the maps are, from 0 for equal maps to 1. It is 0 where both maps are.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    # Frame by frame, so that the gradients of maps with channels last have their channels last, too.
    first, second = (maps.to(dtype).transpose(1, 2).flatten(0, 1) for maps in (x, y))
    size = (first.abs() + second.abs()).sum((2, 3))
    difference = (first - second).abs().sum((2, 3)) / size.clamp(min=torch.finfo(dtype).tiny)
    return difference.unflatten(0, (len(x), -1)).transpose(1, 2)
