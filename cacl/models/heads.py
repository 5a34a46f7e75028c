"""The heads that stand on the features of the encoders in training: one for contrast, one for the frame order."""

from __future__ import annotations

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
