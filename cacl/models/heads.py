"""What is put on the features: the contrasted embedding, and the classifier of the frame order."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ContrastHead(nn.Module):
    """A linear layer to the unit sphere: [B,in_features] -> unit vectors [B,embedding]."""

    def __init__(self, in_features: int, embedding: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_features, embedding)

    def forward(self, features: Tensor) -> Tensor:
        embedding = self.project(features)
        # autocast leaves half precision here, too coarse for lengths: at a temperature of 0.07 errors grow 14-fold
        embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        return F.normalize(embedding, dim=-1)


class OrderHead(nn.Sequential):
    """Tells the edit distance of a shuffled clip: [B,in_features] -> logits [B,classes].

    For the CNN: its features of the clip and of the shuffled copy, concatenated; hidden is the length of one of them,
    and there are T classes.
    """

    def __init__(self, in_features: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(in_features, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
