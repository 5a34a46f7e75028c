"""From YUV planes to a view in half precision, where the crop has the size of the view: no luma is resized then.

That is the published crop of a set prepared for it, and takes most of the time that the `host` backend does not decode,
so it is worth its code. Memory counts more than arithmetic: frames are mixed few at a time, in buffers that stay in the
cache of the core.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from torch import Tensor

FRAMES_AT_ONCE = 4
"""At 112 x 112 the buffers for these take 1.6 MB."""


def mix(y: Tensor, uv: Tensor, weights: Tensor, out: Tensor) -> None:
    """uint8 planes [T, S, S] and [2, T, S/2, S/2] to out, float16 [3, T, S, S].

    weights: float32 [3, 4], the three channels as affine functions of Y, U, V. Chroma is interpolated bilinearly, and
    lies in the middle of its four pixels.
    """
    constant, of_chroma, of_luma = weights[:, 3:], weights[:, 1:3], weights[:, 0].tolist()
    parts = zip(y.split(FRAMES_AT_ONCE), uv.split(FRAMES_AT_ONCE, 1), out.split(FRAMES_AT_ONCE, 1), strict=True)
    for luma, chroma, to in parts:
        buffers = _buffers(len(luma), luma.shape[-1])
        # Chroma is mixed while it is small.
        buffers.chroma.copy_(chroma)
        torch.addmm(constant, of_chroma, buffers.chroma.view(2, -1), out=buffers.tint.view(3, -1))
        _double(buffers)
        buffers.luma.copy_(luma)
        for channel, weight, target in zip(buffers.channels, of_luma, to, strict=True):
            target.copy_(channel.add_(buffers.luma, alpha=weight))


class _Buffers(NamedTuple):
    """For t frames of size S; half is S/2. Everything in them is float32."""

    chroma: Tensor
    """[2, t, half, half]"""
    tint: Tensor
    """[3 t, half, half]: mixed chroma."""
    left: Tensor
    """[3 t, half, half]: `tint`, a quarter of the way to the left neighbour."""
    right: Tensor
    pairs: Tensor
    """complex64 [3 t, half, half]"""
    wide: Tensor
    """[3 t, half, S]: the same memory, its real and imaginary parts as columns."""
    tall: Tensor
    """[3 t, half, 2, S]"""
    channels: tuple[Tensor, ...]
    """Three [t, S, S]: the same memory, its rows in order."""
    luma: Tensor
    """[t, S, S]"""


def _double(b: _Buffers) -> None:
    """tint to channels: each new column, or row, lies a quarter of the way from an old one to its neighbour."""
    x, left, right = b.tint.view(-1), b.left.view(-1), b.right.view(-1)
    # All rows as one, shifted by one; only the columns without a neighbour get a wrong one, and are set afterwards.
    torch.lerp(x[1:], x[:-1], 0.25, out=left[1:])
    torch.lerp(x[:-1], x[1:], 0.25, out=right[:-1])
    b.left[..., 0], b.right[..., -1] = b.tint[..., 0], b.tint[..., -1]
    # Real and imaginary parts lie side by side: nothing else interleaves columns as fast.
    torch.complex(b.left, b.right, out=b.pairs)
    torch.lerp(b.wide[:, 1:], b.wide[:, :-1], 0.25, out=b.tall[:, 1:, 0])
    torch.lerp(b.wide[:, :-1], b.wide[:, 1:], 0.25, out=b.tall[:, :-1, 1])
    b.tall[:, 0, 0], b.tall[:, -1, 1] = b.wide[:, 0], b.wide[:, -1]


_local = threading.local()


def _buffers(frames: int, size: int) -> _Buffers:
    """Those of this thread."""
    kept: dict[tuple[int, int], _Buffers] = _local.__dict__.setdefault("buffers", {})
    if (frames, size) not in kept:
        rows, half = 3 * frames, size // 2
        pairs = torch.empty(rows, half, half, dtype=torch.complex64)
        tall = torch.empty(rows, half, 2, size)
        kept[frames, size] = _Buffers(
            chroma=torch.empty(2, frames, half, half),
            tint=torch.empty(rows, half, half),
            left=torch.empty(rows, half, half),
            right=torch.empty(rows, half, half),
            pairs=pairs,
            wide=torch.view_as_real(pairs).view(rows, half, size),
            tall=tall,
            channels=tall.view(3, frames, size, size).unbind(),
            luma=torch.empty(frames, size, size),
        )
    return kept[frames, size]
