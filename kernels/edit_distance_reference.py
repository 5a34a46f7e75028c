"""The edit distance in torch: the readable form of what the kernels compute, and what runs on a CPU.

The bit-vector algorithm of Myers (J. ACM 46(3), 1999) in the form of Hyyrö (Nordic J. Computing 10, 2003), whose
letters are used here. The table of the dynamic programme has a row for each symbol of the first sequence and a column
for each symbol of the second. A column is held as the differences between neighbouring cells, a bit of a word for each
row: `vp` (vertical, positive) where a cell is one more than the cell above it, `vn` (vertical, negative) where it is
one less. About sixteen operations on words lead to the next column.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WORD_BITS = 64
"""The rows of the table that fit in the widest word."""
CHUNK_ROWS = 1 << 15
"""The orders that the reference takes at a time. What it computes then stays in the cache, and torch does not share the
work between threads, which would wait for each other at the end of operations of microseconds."""

# The kernels compile these three functions. Torch runs the Python functions themselves, `.fn`.


@triton.jit
def horizontal_differences(match, vp, vn):
    """Goes from a column to the next, whose symbol occurs in the rows `match`.

    It returns three words: `d0` has the rows whose cell equals the one to the left and above, `hp` (horizontal,
    positive) those whose cell is one more than the one to the left, and `hn` those where it is one less.
    """
    d0 = (((match & vp) + vp) ^ vp) | match | vn
    return d0, vn | ~(d0 | vp), d0 & vp


@triton.jit
def vertical_differences(d0, hp_above, hn_above):
    """Computes `vp` and `vn` of the next column from `d0`, and from `hp` and `hn` of the row above each."""
    return hn_above | ~(d0 | hp_above), hp_above & d0


@triton.jit
def popcount(word, bits: tl.constexpr):
    """Counts the ones of a word: the sums of pairs of bits, of fours, of eights, and of all bytes.

    From Warren, Hacker's Delight, section 5-1. The masks also drop the copies of the sign that the shifts bring in.
    """
    word = word - ((word >> 1) & ((2**bits - 1) // 3))
    word = (word & ((2**bits - 1) // 5)) + ((word >> 2) & ((2**bits - 1) // 5))
    word = (word + (word >> 4)) & ((2**bits - 1) // 17)
    return (word * ((2**bits - 1) // 255)) >> (bits - 8)


def to_identity_reference(order: Tensor) -> Tensor:
    """Computes the distance of each order to 0, 1, ..., L - 1.

    Args:
        order: Permutations of 0..L-1, uint8 [B, L] with L from 1 to 64.

    Returns:
        The distances, uint8 [B].
    """
    length = order.shape[1]
    word = next(dtype for dtype in (torch.int8, torch.int16, torch.int32, torch.int64) if length <= 8 * dtype.itemsize)
    bits = 8 * word.itemsize
    distances = []
    for chunk in order.split(CHUNK_ROWS):
        one = torch.ones(chunk.shape[0], dtype=word, device=order.device)
        vp, vn = -one, torch.zeros_like(one)
        for symbol in chunk.unbind(1):
            match = one << symbol.contiguous().to(word)  # This is faster than to convert what lies apart.
            d0, hp, hn = horizontal_differences.fn(match, vp, vn)
            # Above the first row the cells count 0, 1, 2, ...: one more each, the bit that enters on the right.
            vp, vn = vertical_differences.fn(d0, hp + hp | one, hn + hn)
        # This is the last cell of the last column. The shifts drop the bits that have no row.
        unused = bits - length
        distance = length + popcount.fn(vp << unused, bits) - popcount.fn(vn << unused, bits)
        distances.append(distance.to(torch.uint8))
    return torch.cat(distances)


def sequences_reference(first: Tensor, second: Tensor, first_lengths: Tensor, second_lengths: Tensor) -> Tensor:
    """Computes the distances of pairs of sequences, in words of 64 rows of the table.

    Args:
        first: The first sequences, int32 or int64 [B, M].
        second: The second sequences, of the same dtype, [B, N].
        first_lengths: How many symbols of each first sequence count, int32 [B], from 0 to M.
        second_lengths: How many symbols of each second sequence count, int32 [B], from 0 to N.

    Returns:
        The distances, int32 [B].
    """
    one = torch.ones(second.shape[0], dtype=torch.int64, device=second.device)
    bit = one.new_ones(1) << torch.arange(WORD_BITS, device=second.device)
    # For each column: whether the cell above a word is one more, or one less, than the one to its left.
    rises, falls = [one > 0] * second.shape[1], [one < 0] * second.shape[1]
    distance = second_lengths
    for start in range(0, first.shape[1], WORD_BITS):
        word = first[:, start : start + WORD_BITS]
        vp, vn = -one, torch.zeros_like(one)
        for column, symbol in enumerate(second.unbind(1)):
            match = torch.where(word == symbol[:, None], bit[: word.shape[1]], 0).sum(1)
            d0, hp, hn = horizontal_differences.fn(match | falls[column], vp, vn)
            next_vp, next_vn = vertical_differences.fn(d0, hp + hp | rises[column], hn + hn | falls[column])
            rises[column], falls[column] = hp < 0, hn < 0
            counts = column < second_lengths
            vp, vn = torch.where(counts, next_vp, vp), torch.where(counts, next_vn, vn)
        height = first_lengths - start
        unused = (WORD_BITS - height).clamp(0, WORD_BITS - 1)
        climb = popcount.fn(vp << unused, WORD_BITS) - popcount.fn(vn << unused, WORD_BITS)
        distance = distance + torch.where(height > 0, climb, 0)
    return distance.to(torch.int32)


def empty_to_identity(order: Tensor) -> Tensor:
    """Makes an empty tensor for what `to_identity_reference` returns."""
    return order.new_empty(order.shape[0])


def empty_sequences(first: Tensor, second: Tensor, first_lengths: Tensor, second_lengths: Tensor) -> Tensor:
    """Makes an empty tensor for what `sequences_reference` returns."""
    return first_lengths.new_empty(second.shape[0])
