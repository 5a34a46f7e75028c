"""Plans of clips, and the DALI backend beside the reference.

Views are made by DALI's operators, or ("triton") by our kernel, which on a CPU is the reference itself.

Half precision rounds by at most 2**-11 of a value. Inside a view nothing else happens: DALI computes in float32 what
torch computes in float32. Along the edges of a view that shrinks, both let their filter reach over the edge of the
crop, by an eighth of its weight: there DALI repeats the edge and torch leaves the eighth out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cacl.clips import ClipBatch, ClipPlan, ViewPlan
from cacl.loaders.backends import dali
from cacl.loaders.backends.reference import load_clip
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.augmentation import color_matrix
from tests.loaders.backends.clips import CPU, LEVEL

ViewMakerName = Literal["dali", "triton"]
VIEW_MAKERS: tuple[ViewMakerName, ...] = ("dali", "triton")
SIZE, LENGTH, STRIDE, FRAMES = 32, 6, 2, 40
EDGE = 1 - (7 / 8) ** 2
"""The weight of the filter that lies outside of the crop at a corner of a view."""
STRONG = color_matrix(brightness=1.8, contrast=1.7, saturation=2.0, hue=0.3)
GREY = color_matrix(brightness=0.4, saturation=0.0)


def plan(index: int, video: int, *views: ViewPlan, start: int = 5) -> ClipPlan:
    order = tuple((index + position) % LENGTH for position in range(LENGTH))
    return ClipPlan(index=index, video=video, start=start, stride=STRIDE, length=LENGTH, order=order, views=views)


def dali_backend(
    videos: Catalog, device: torch.device = CPU, pipelines: int = 2, views: ViewMakerName = "dali"
) -> dali.DaliBackend:
    return dali.DaliBackend(videos, size=SIZE, threads=2, prefetch=3, pipelines=pipelines, device=device, views=views)


def reference_backend(videos: Catalog) -> ThreadPoolBackend:
    return ThreadPoolBackend(load_clip, videos, size=SIZE, threads=2, prefetch=3)


def views_of(batch: ClipBatch) -> Tensor:
    return torch.stack(batch.views).float()


def only(batches: Sequence[ClipBatch]) -> Tensor:
    (batch,) = batches
    return views_of(batch)


def inside(views: Tensor) -> Tensor:
    return views[..., 1:-1, 1:-1]


def assert_rounding_only(ours: Tensor, theirs: Tensor, levels: float = 0.01) -> None:
    """Allows for two roundings to half precision, and for so many 8-bit levels between what was rounded."""
    torch.testing.assert_close(ours, theirs, rtol=2**-10, atol=levels * LEVEL)
