"""Levenshtein distance of frame orders and of other integer sequences, batched on the device that holds them.

The bit-vector algorithm of Myers (J. ACM 46(3), 1999) in the form of Hyyrö (Nordic J. Computing 10, 2003). The table
of the dynamic programme has a row for each symbol of the first sequence and a column for each symbol of the second. A
column is held as the differences between neighbouring cells, a bit of a word for each row: `up` where a cell is one
more than the cell above it, `down` where it is one less. About sixteen operations on words lead to the next column.

On a GPU each thread takes one pair of sequences. There the kernels win at any size of the batch: the reference would
launch those sixteen operations as a kernel each, for every symbol.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cacl.kernels.dispatch import operation

WORD = 64
"""Rows of the table that fit in the widest word."""
NARROW = {torch.uint8, torch.int8, torch.int16, torch.int32}
"""Integers that fit in int32."""
INTEGERS = NARROW | {torch.int64, torch.uint16, torch.uint32, torch.uint64}


def edit_distance_to_identity(order: Tensor) -> Tensor:
    """Levenshtein distance between each row and 0, 1, ..., L - 1.

    order: integer [B, L], L >= 1, rows are permutations of 0..L-1 (of other rows the result means nothing); uint8 is
    the fastest. Returns uint8 [B], or int32 [B] for L > 255, on the same device, without a synchronisation.

    By the algorithm of Myers (1999) in Hyyrö's form (2003). The symbol c occurs in row c and nowhere else, so up to
    L = 64 nothing has to be compared.

    Raises TypeError if the order is not of integers, ValueError if it is not [B, L] with L >= 1.
    """
    _require_sequences(order=order)
    length = order.shape[1]
    if length == 0:
        raise ValueError("orders of no frames")
    if length <= WORD:
        return _to_identity(order.to(torch.uint8))
    identity = torch.arange(length, dtype=torch.int32, device=order.device)
    distance = edit_distance(identity.expand_as(order), order.to(torch.int32))
    return distance.to(torch.uint8) if length <= 255 else distance


def edit_distance_of_orders(first: Tensor, second: Tensor) -> Tensor:
    """Levenshtein distance between the rows of two tensors of permutations.

    first, second: integer [B, L], L >= 1, rows are permutations of 0..L-1. Returns uint8 [B], or int32 [B] for
    L > 255, on the same device, without a synchronisation.

    A distance stays the same when symbols are renamed alike in both sequences. Here each is renamed to its place in
    the second, which so becomes 0, 1, ..., L - 1.

    Raises TypeError if one is not of integers, ValueError if they differ in shape or device or are not [B, L] with
    L >= 1.
    """
    _require_sequences(first=first, second=second)
    if first.shape != second.shape:
        raise ValueError(f"orders of different shapes, {tuple(first.shape)} and {tuple(second.shape)}")
    length = first.shape[1]
    places = torch.arange(length, dtype=torch.uint8 if length <= WORD else torch.int32, device=first.device)
    place_of = torch.empty_like(second, dtype=places.dtype).scatter_(1, second.long(), places.expand_as(second))
    return edit_distance_to_identity(place_of.gather(1, first.long()))


def edit_distance(
    first: Tensor, second: Tensor, first_lengths: Tensor | None = None, second_lengths: Tensor | None = None
) -> Tensor:
    """Levenshtein distance between the rows of two tensors of sequences.

    first: integer [B, M], second: integer [B, N]; symbols may repeat, and fit in int64. first_lengths, second_lengths:
    integer [B], how many symbols of each row count, from 0 to all; None: all. What lies outside counts as 0 or as all,
    for to find it would take a synchronisation. Returns int32 [B] on the same device, without a synchronisation.

    By the algorithm of Myers (1999) in Hyyrö's form (2003), in words of 64 rows: each passes on the differences between
    neighbouring cells of its last row.

    Raises TypeError if one is not of integers, ValueError if the shapes do not fit together or the devices differ.
    """
    _require_sequences(first=first, second=second)
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"batches of different sizes, {first.shape[0]} and {second.shape[0]}")
    symbols = torch.int32 if {first.dtype, second.dtype} <= NARROW else torch.int64
    return _general(
        first.to(symbols), second.to(symbols), _counted(first, first_lengths), _counted(second, second_lengths)
    )


def _counted(sequences: Tensor, lengths: Tensor | None) -> Tensor:
    """int32 [B]: how many symbols of each row count."""
    batch, longest = sequences.shape
    if lengths is None:
        return torch.full((batch,), longest, dtype=torch.int32, device=sequences.device)
    if lengths.dtype not in INTEGERS:
        raise TypeError(f"lengths are {lengths.dtype}, not integers")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths are {tuple(lengths.shape)}, not ({batch},) as the batch")
    if lengths.device != sequences.device:
        raise ValueError(f"lengths are on {lengths.device}, sequences on {sequences.device}")
    return lengths.long().clamp(0, longest).to(torch.int32)


def _require_sequences(**sequences: Tensor) -> None:
    for name, tensor in sequences.items():
        if tensor.dtype not in INTEGERS:
            raise TypeError(f"{name} is {tensor.dtype}, not integers")
        if tensor.dim() != 2:
            raise ValueError(f"{name} has {tensor.dim()} dimensions, not 2: batch and length")
    devices = {str(tensor.device) for tensor in sequences.values()}
    if len(devices) > 1:
        raise ValueError(f"sequences on different devices, {' and '.join(sorted(devices))}")


# What kernels and reference share. The kernels take it compiled; torch runs the Python functions themselves, `.fn`.


@triton.jit
def _horizontal(match, up, down):
    """From a column to the next, whose symbol occurs in the rows `match`: the rows whose cell equals the one to the
    left and above, those whose cell is one more than the one to the left, and those where it is one less."""
    diagonal = (((match & up) + up) ^ up) | match | down
    return diagonal, down | ~(diagonal | up), diagonal & up


@triton.jit
def _vertical(diagonal, right, left):
    """`up` and `down` of the next column. right, left: what `_horizontal` tells of the row above each."""
    return left | ~(diagonal | right), right & diagonal


@triton.jit
def _popcount(word, bits: tl.constexpr):
    """The number of ones: the sums of pairs of bits, of fours, of eights, and of all bytes (Warren, Hacker's Delight,
    section 5-1). The masks also drop the copies of the sign that the shifts bring in."""
    word = word - ((word >> 1) & ((2**bits - 1) // 3))
    word = (word & ((2**bits - 1) // 5)) + ((word >> 2) & ((2**bits - 1) // 5))
    word = (word + (word >> 4)) & ((2**bits - 1) // 17)
    return (word * ((2**bits - 1) // 255)) >> (bits - 8)


PART = 1 << 15
"""Rows that the reference takes at once. What it computes stays in the cache, and torch does not share the work
between threads, which would wait for each other at the end of operations of microseconds."""


def _to_identity_reference(order: Tensor) -> Tensor:
    length = order.shape[1]
    word = next(dtype for dtype in (torch.int8, torch.int16, torch.int32, torch.int64) if length <= 8 * dtype.itemsize)
    bits = 8 * word.itemsize
    distances = []
    for part in order.split(PART):
        one = torch.ones(part.shape[0], dtype=word, device=order.device)
        up, down = -one, torch.zeros_like(one)
        for symbol in part.unbind(1):
            match = one << symbol.contiguous().to(word)  # which is faster than to convert what lies apart
            diagonal, right, left = _horizontal.fn(match, up, down)
            # Above the first row the cells count 0, 1, 2, ...: one more each, the bit that enters on the right.
            up, down = _vertical.fn(diagonal, right + right | one, left + left)
        # The last cell of the last column. The shifts drop the bits that have no row.
        unused = bits - length
        distance = length + _popcount.fn(up << unused, bits) - _popcount.fn(down << unused, bits)
        distances.append(distance.to(torch.uint8))
    return torch.cat(distances)


def _general_reference(first: Tensor, second: Tensor, first_lengths: Tensor, second_lengths: Tensor) -> Tensor:
    one = torch.ones(second.shape[0], dtype=torch.int64, device=second.device)
    bit = one.new_ones(1) << torch.arange(WORD, device=second.device)
    # For each column whether the cell above a word is one more, or one less, than the one to its left.
    rises, falls = [one > 0] * second.shape[1], [one < 0] * second.shape[1]
    distance = second_lengths
    for start in range(0, first.shape[1], WORD):
        word = first[:, start : start + WORD]
        up, down = -one, torch.zeros_like(one)
        for column, symbol in enumerate(second.unbind(1)):
            match = torch.where(word == symbol[:, None], bit[: word.shape[1]], 0).sum(1)
            diagonal, right, left = _horizontal.fn(match | falls[column], up, down)
            next_up, next_down = _vertical.fn(diagonal, right + right | rises[column], left + left | falls[column])
            rises[column], falls[column] = right < 0, left < 0
            counts = column < second_lengths
            up, down = torch.where(counts, next_up, up), torch.where(counts, next_down, down)
        height = first_lengths - start
        unused = (WORD - height).clamp(0, WORD - 1)
        climb = _popcount.fn(up << unused, WORD) - _popcount.fn(down << unused, WORD)
        distance = distance + torch.where(height > 0, climb, 0)
    return distance.to(torch.int32)


@triton.jit(do_not_specialize=["batch"])
def to_identity_kernel(
    orders,
    distances,
    batch,
    LENGTH: tl.constexpr,
    BITS: tl.constexpr,
    SYMBOLS_PER_LOAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """orders: uint8 [batch, LENGTH], distances: uint8 [batch]. BITS of a word: 32 or 64, at least LENGTH.
    SYMBOLS_PER_LOAD: 4 if every row begins at a multiple of 4 bytes, else 1."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < batch
    one = tl.full([ROWS], 1, tl.int32 if BITS == 32 else tl.int64)
    up = -one
    down = one - one
    # Neighbouring threads read different rows, which makes a load of one byte as slow as one of four.
    packed = tl.pointer_type(tl.int32 if SYMBOLS_PER_LOAD == 4 else tl.uint8)
    address = orders.to(packed) + row.to(tl.int64) * (LENGTH // SYMBOLS_PER_LOAD)
    for i in tl.range(0, LENGTH // SYMBOLS_PER_LOAD, loop_unroll_factor=4):  # all at once would take more registers
        symbols = tl.load(address + i, mask=inside, other=0).to(tl.int32)
        for k in tl.static_range(SYMBOLS_PER_LOAD):
            symbol = (symbols >> (8 * k)) & 255
            diagonal, right, left = _horizontal(one << symbol.to(one.dtype), up, down)
            up, down = _vertical(diagonal, right + right | one, left + left)
    distance = LENGTH + _popcount(up << (BITS - LENGTH), BITS) - _popcount(down << (BITS - LENGTH), BITS)
    tl.store(distances + row, distance.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["batch"])
def general_kernel(
    first,
    second,
    first_lengths,
    second_lengths,
    differences,
    distances,
    batch,
    WORD: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """first: integer [M, batch], second: integer [N, batch], lengths and distances: int32 [batch]. differences: int8
    [N, batch], for each column the cell above a word less the one to its left, passed on from word to word.

    Were the batch known to be a multiple of 16, Triton would load four pairs at once, and so give them to one thread.
    """
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    inside = pair < batch
    rows = tl.load(first_lengths + pair, mask=inside, other=0)
    columns = tl.load(second_lengths + pair, mask=inside, other=0)
    one = tl.full([PAIRS], 1, tl.int64)
    rank_offset = tl.arange(0, WORD)[:, None]
    bit = tl.full([WORD, 1], 1, tl.int64) << rank_offset
    distance = columns
    for start in range(0, tl.max(rows), WORD):
        row = start + rank_offset
        address = first + row.to(tl.int64) * batch + pair[None, :]
        # Rows below the last one of a pair may match or not: no row depends on those below it.
        word = tl.load(address, mask=row < rows[None, :], other=0)
        up = -one
        down = one - one
        for column in range(tl.max(columns)):
            offset = tl.cast(column, tl.int64) * batch + pair
            symbol = tl.load(second + offset, mask=inside, other=0)
            match = tl.sum(tl.where(word == symbol[None, :], bit, 0), 0)
            # The row above all counts 0, 1, 2, ...
            difference = tl.load(differences + offset, mask=inside & (start > 0), other=1)
            rises = (difference > 0).to(tl.int64)
            falls = (difference < 0).to(tl.int64)
            diagonal, right, left = _horizontal(match | falls, up, down)
            next_up, next_down = _vertical(diagonal, right + right | rises, left + left | falls)
            tl.store(differences + offset, (right < 0).to(tl.int8) - (left < 0).to(tl.int8), mask=inside)
            counts = column < columns
            up = tl.where(counts, next_up, up)
            down = tl.where(counts, next_down, down)
        tl.debug_barrier()  # what was written is read for the next word
        height = rows - start
        unused = tl.minimum(tl.maximum(WORD - height, 0), WORD - 1).to(tl.int64)
        climb = _popcount(up << unused, WORD) - _popcount(down << unused, WORD)
        distance += tl.where(height > 0, climb, 0).to(tl.int32)
    tl.store(distances + pair, distance, mask=inside)


ROWS = 128
"""Orders of a program, a thread for each."""
PAIRS = 32
"""Pairs of sequences of a program, a thread for each. It holds the 64 symbols of a word in registers, of which
larger programs would leave more unused."""
OPTIONS = {"enable_fp_fusion": True}
"""Means nothing to integers, but Triton 3.9 warns where it is not said."""


def _to_identity_launch(order: Tensor) -> Tensor:
    order = order.contiguous()
    distance = _empty_to_identity(order)
    batch, length = order.shape
    if batch == 0:
        return distance
    bits = 32 if length <= 32 else 64
    symbols_per_load = 4 if length % 4 == 0 and order.data_ptr() % 4 == 0 else 1
    to_identity_kernel[triton.cdiv(batch, ROWS),](
        order, distance, batch, length, bits, symbols_per_load, ROWS, num_warps=ROWS // 32, **OPTIONS
    )
    return distance


def _general_launch(first: Tensor, second: Tensor, first_lengths: Tensor, second_lengths: Tensor) -> Tensor:
    distance = _empty_general(first, second, first_lengths, second_lengths)
    batch = second.shape[0]
    if batch == 0:
        return distance
    # Neighbouring threads have neighbouring pairs, and so read and write neighbouring places.
    first, second = first.t().contiguous(), second.t().contiguous()
    tensors = [first, second, first_lengths, second_lengths, torch.empty_like(second, dtype=torch.int8), distance]
    general_kernel[triton.cdiv(batch, PAIRS),](*tensors, batch, WORD, PAIRS, num_warps=PAIRS // 32, **OPTIONS)
    return distance


def _empty_to_identity(order: Tensor) -> Tensor:
    return order.new_empty(order.shape[0])


def _empty_general(first: Tensor, second: Tensor, first_lengths: Tensor, second_lengths: Tensor) -> Tensor:
    return first_lengths.new_empty(second.shape[0])


_to_identity = operation(
    "edit_distance_to_identity(Tensor order) -> Tensor",  # of uint8, L <= 64
    reference=_to_identity_reference,
    kernel=_to_identity_launch,
    shapes=_empty_to_identity,
)
_general = operation(
    "edit_distance(Tensor first, Tensor second, Tensor first_lengths, Tensor second_lengths) -> Tensor",
    reference=_general_reference,
    kernel=_general_launch,
    shapes=_empty_general,
)
