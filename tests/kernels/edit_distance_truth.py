"""Orders and sequences in many forms, and their edit distances by rapidfuzz."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]
LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 62, 63, 64, 65, 100, 128, 129, 255, 256, 300]
"""Lengths of orders on both sides of every word size."""
WORDS = [1, 2, 8, 9, 16, 17, 32, 33, 63, 64, 65, 129]
"""Lengths that need words of each size, one of them and more; each of `LENGTHS` is compared with rapidfuzz."""


def by_rapidfuzz(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> list[int]:
    """Computes the distances of sequences of small symbols, which become characters."""
    return [Levenshtein.distance(text(a), text(b)) for a, b in zip(first, second, strict=True)]


def to_identity_by_rapidfuzz(order: np.ndarray) -> list[int]:
    return by_rapidfuzz(order, [np.arange(order.shape[1])] * len(order))


def text(row: np.ndarray) -> str:
    return row.astype("<u4").tobytes().decode("utf-32-le")


def distance_dtype(length: int) -> torch.dtype:
    return torch.uint8 if length <= 255 else torch.int32


def adversarial_orders(length: int) -> np.ndarray:
    """Makes identity, reversal, swaps, rotations, moved and reversed blocks, and interleaving: integer [n, length]."""
    identity = list(range(length))
    rows = [identity, identity[::-1], identity[::2] + identity[1::2], identity[1::2] + identity[::2]]
    cuts = sorted({0, 1, 2, length // 3, length // 2, length - 2, length - 1, length} & set(range(length + 1)))
    for i, j in itertools.combinations(cuts[:-1], 2):
        swapped = identity.copy()
        swapped[i], swapped[j] = swapped[j], swapped[i]
        rows.append(swapped)
    rows += [identity[cut:] + identity[:cut] for cut in cuts]
    for a, b, c in itertools.combinations_with_replacement(cuts, 3):
        rows.append(identity[:a] + identity[b:c] + identity[a:b] + identity[c:])  # a block moved
        rows.append(identity[:a] + identity[a:b][::-1] + identity[b:])  # a block reversed
    return np.array(rows, narrowest_dtype(length))


def narrowest_dtype(length: int) -> type[np.integer]:
    return np.uint8 if length <= 256 else np.int32


def random_orders(length: int, rows: int) -> np.ndarray:
    """Moves from one to all frames: integer [rows, length].

    Whole permutations would have distances in a narrow range only.
    """
    rng = np.random.default_rng(length)
    orders = np.tile(np.arange(length, dtype=narrowest_dtype(length)), (rows, 1))
    for row in orders:
        chosen = rng.choice(length, rng.integers(1, length + 1), replace=False)
        row[np.sort(chosen)] = chosen
    return orders


def sample_orders(length: int) -> np.ndarray:
    rows = 4000 if length < 64 else 1000 if length < 128 else 200
    return np.concatenate([adversarial_orders(length), random_orders(length, rows)])


def columns_first(order: Tensor) -> Tensor:
    return order.t().contiguous().t()


def every_other(order: Tensor) -> Tensor:
    return order.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, 1::2]


def offset(order: Tensor) -> Tensor:
    return torch.nn.functional.pad(order, (3, 2, 1, 1), value=7)[1:-1, 3:-2]


def related_sequences(first: int, second: int, alphabet: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes pairs of sequences of `alphabet` symbols, from unrelated to almost equal ones.

    They are int32 [rows, first] and [rows, second]. The second is the first with symbols dropped, doubled and replaced.
    """
    rng = np.random.default_rng([first, second, alphabet])
    a = rng.integers(0, alphabet, (rows, first), np.int32)
    b = rng.integers(0, alphabet, (rows, second), np.int32)
    share = rng.random((rows, 1))
    if first:
        moves = rng.choice([0, 1, 2], (rows, second), p=[0.05, 0.9, 0.05]).cumsum(1) - 1
        b = np.where(rng.random(b.shape) < share, np.take_along_axis(a, moves.clip(0, first - 1), 1), b)
    return a, b


def random_lengths(rows: int, longest: int, seed: int) -> np.ndarray:
    """Draws lengths, int64 [rows]: any, and often none, all, or as many as fill words."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, rows)
    special = [length for length in (0, 1, 63, 64, 65, 128, 256, longest) if length <= longest]
    return np.where(rng.random(rows) < 0.3, rng.choice(special, rows), lengths)


def cut(rows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]
