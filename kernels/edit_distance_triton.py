"""The edit distance in Triton: its kernels and their launches.

Each thread takes one pair of sequences. On a GPU the kernels win at any size of the batch, since the reference would
launch its sixteen operations as a kernel each, for every symbol. The algorithm and its letters are those of
`edit_distance_reference`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cacl.kernels.edit_distance_reference import (
    WORD_BITS,
    empty_sequences,
    empty_to_identity,
    horizontal_differences,
    popcount,
    vertical_differences,
)

# --- Kernels


@triton.jit(do_not_specialize=["batch"])
def to_identity_kernel(
    orders,
    distances,
    batch,
    LENGTH: tl.constexpr,
    BITS: tl.constexpr,
    SYMBOLS_PER_LOAD: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Computes the distances, uint8 [batch], of a block of orders, uint8 [batch, LENGTH], to 0, 1, ..., LENGTH - 1.

    BITS is the width of a word, 32 or 64 and at least LENGTH. SYMBOLS_PER_LOAD is 4 if every row begins at a multiple
    of 4 bytes, else 1.
    """
    row = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = row < batch
    one = tl.full([BLOCK_B], 1, tl.int32 if BITS == 32 else tl.int64)
    vp = -one  # [BLOCK_B]
    vn = one - one  # [BLOCK_B]
    # Neighbouring threads read different rows, which makes a load of one byte as slow as one of four.
    packed = tl.pointer_type(tl.int32 if SYMBOLS_PER_LOAD == 4 else tl.uint8)
    address = orders.to(packed) + row.to(tl.int64) * (LENGTH // SYMBOLS_PER_LOAD)
    for i in tl.range(0, LENGTH // SYMBOLS_PER_LOAD, loop_unroll_factor=4):  # All at once would take more registers.
        symbols = tl.load(address + i, mask=inside, other=0).to(tl.int32)  # [BLOCK_B]
        for k in tl.static_range(SYMBOLS_PER_LOAD):
            symbol = (symbols >> (8 * k)) & 255
            d0, hp, hn = horizontal_differences(one << symbol.to(one.dtype), vp, vn)
            vp, vn = vertical_differences(d0, hp + hp | one, hn + hn)
    distance = LENGTH + popcount(vp << (BITS - LENGTH), BITS) - popcount(vn << (BITS - LENGTH), BITS)
    tl.store(distances + row, distance.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["batch"])
def sequences_kernel(
    first,
    second,
    first_lengths,
    second_lengths,
    differences,
    distances,
    batch,
    WORD_BITS: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """Computes the distances, int32 [batch], of a block of pairs of sequences, integer [M, batch] and [N, batch].

    The lengths are int32 [batch]. differences, int8 [N, batch], has for each column the cell above a word less the one
    to its left, passed on from word to word.

    Were the batch known to be a multiple of 16, Triton would load four pairs at once, and so give them to one thread.
    """
    pair = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    inside = pair < batch
    rows = tl.load(first_lengths + pair, mask=inside, other=0)  # [BLOCK_B]
    columns = tl.load(second_lengths + pair, mask=inside, other=0)  # [BLOCK_B]
    one = tl.full([BLOCK_B], 1, tl.int64)
    row_of_word = tl.arange(0, WORD_BITS)[:, None]
    bit = tl.full([WORD_BITS, 1], 1, tl.int64) << row_of_word
    distance = columns
    for start in range(0, tl.max(rows), WORD_BITS):
        row = start + row_of_word  # [WORD_BITS, 1]
        address = first + row.to(tl.int64) * batch + pair[None, :]
        # Rows below the last one of a pair may match or not: no row depends on those below it.
        word = tl.load(address, mask=row < rows[None, :], other=0)  # [WORD_BITS, BLOCK_B]
        vp = -one  # [BLOCK_B]
        vn = one - one  # [BLOCK_B]
        for column in range(tl.max(columns)):
            offset = tl.cast(column, tl.int64) * batch + pair
            symbol = tl.load(second + offset, mask=inside, other=0)
            match = tl.sum(tl.where(word == symbol[None, :], bit, 0), 0)  # [BLOCK_B]
            # The row above all counts 0, 1, 2, ...
            difference = tl.load(differences + offset, mask=inside & (start > 0), other=1)
            rises = (difference > 0).to(tl.int64)
            falls = (difference < 0).to(tl.int64)
            d0, hp, hn = horizontal_differences(match | falls, vp, vn)
            next_vp, next_vn = vertical_differences(d0, hp + hp | rises, hn + hn | falls)
            tl.store(differences + offset, (hp < 0).to(tl.int8) - (hn < 0).to(tl.int8), mask=inside)
            counts = column < columns
            vp = tl.where(counts, next_vp, vp)
            vn = tl.where(counts, next_vn, vn)
        tl.debug_barrier()  # What was written is read for the next word.
        height = rows - start
        unused = tl.minimum(tl.maximum(WORD_BITS - height, 0), WORD_BITS - 1).to(tl.int64)
        climb = popcount(vp << unused, WORD_BITS) - popcount(vn << unused, WORD_BITS)
        distance += tl.where(height > 0, climb, 0).to(tl.int32)
    tl.store(distances + pair, distance, mask=inside)


# --- Launches

ORDERS_PER_PROGRAM = 128
"""The orders of a program of `to_identity_kernel`, a thread for each."""
PAIRS_PER_PROGRAM = 32
"""The pairs of sequences of a program of `sequences_kernel`, a thread for each. A program holds the 64 symbols of a
word in registers, of which larger programs would leave more unused."""
OPTIONS = {"enable_fp_fusion": True}
"""The fusion means nothing to integers, but Triton 3.9 warns where it is not said."""


def launch_to_identity(order: Tensor) -> Tensor:
    """Launches `to_identity_kernel`; argument and result are those of `to_identity_reference`."""
    order = order.contiguous()
    distance = empty_to_identity(order)
    batch, length = order.shape
    if batch == 0:
        return distance
    to_identity_kernel[triton.cdiv(batch, ORDERS_PER_PROGRAM),](
        orders=order,
        distances=distance,
        batch=batch,
        LENGTH=length,
        BITS=32 if length <= 32 else 64,
        SYMBOLS_PER_LOAD=4 if length % 4 == 0 and order.data_ptr() % 4 == 0 else 1,
        BLOCK_B=ORDERS_PER_PROGRAM,
        num_warps=ORDERS_PER_PROGRAM // 32,
        **OPTIONS,
    )
    return distance


def launch_sequences(first: Tensor, second: Tensor, first_lengths: Tensor, second_lengths: Tensor) -> Tensor:
    """Launches `sequences_kernel`; arguments and result are those of `sequences_reference`."""
    distance = empty_sequences(first, second, first_lengths, second_lengths)
    batch = second.shape[0]
    if batch == 0:
        return distance
    # Neighbouring threads have neighbouring pairs, and so read and write neighbouring addresses.
    first, second = first.t().contiguous(), second.t().contiguous()
    sequences_kernel[triton.cdiv(batch, PAIRS_PER_PROGRAM),](
        first=first,
        second=second,
        first_lengths=first_lengths,
        second_lengths=second_lengths,
        differences=torch.empty_like(second, dtype=torch.int8),
        distances=distance,
        batch=batch,
        WORD_BITS=WORD_BITS,
        BLOCK_B=PAIRS_PER_PROGRAM,
        num_warps=PAIRS_PER_PROGRAM // 32,
        **OPTIONS,
    )
    return distance
