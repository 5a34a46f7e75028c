"""Levenshtein distance of frame orders and of other integer sequences, batched on the device that holds them.

The algorithm is that of Myers (J. ACM 46(3), 1999) in the form of Hyyrö (Nordic J. Computing 10, 2003), on words of
bits: `edit_distance_reference` explains it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cacl.kernels.dispatch import register_operation
from cacl.kernels.edit_distance_cpu import to_identity_cpu
from cacl.kernels.edit_distance_reference import (
    WORD_BITS,
    empty_sequences,
    empty_to_identity,
    sequences_reference,
    to_identity_reference,
)
from cacl.kernels.edit_distance_triton import launch_sequences, launch_to_identity

INT32_DTYPES = {torch.uint8, torch.int8, torch.int16, torch.int32}
"""The integer dtypes whose numbers fit in int32."""
INTEGER_DTYPES = INT32_DTYPES | {torch.int64, torch.uint16, torch.uint32, torch.uint64}
"""The dtypes of sequences and lengths."""


def edit_distance_to_identity(order: Tensor) -> Tensor:
    """Computes the Levenshtein distance between each row and 0, 1, ..., L - 1, without a synchronisation.

    The symbol c of the identity occurs in row c of the table and nowhere else, so up to L = 64 nothing has to be
    compared.

    Args:
        order: Permutations of 0..L-1, integer [B, L] with L from 1 on. uint8 is the fastest. For rows that are no
            permutations the result means nothing.

    Returns:
        The distances on the same device, uint8 [B], or int32 [B] for L > 255.

    Raises:
        TypeError: The order is not of integers.
        ValueError: The order is not [B, L] with L from 1 on.
    """
    _require_sequences(order=order)
    length = order.shape[1]
    if length == 0:
        raise ValueError("orders of no frames")
    if length <= WORD_BITS:
        return _to_identity(order.to(torch.uint8))
    identity = torch.arange(length, dtype=torch.int32, device=order.device)
    distance = edit_distance(identity.expand_as(order), order.to(torch.int32))
    return distance.to(torch.uint8) if length <= 255 else distance


def edit_distance_of_orders(first: Tensor, second: Tensor) -> Tensor:
    """Computes the Levenshtein distance between the rows of two tensors of permutations, without a synchronisation.

    A distance stays the same when symbols are renamed alike in both sequences. Here each is renamed to its position in
    the second, which so becomes 0, 1, ..., L - 1.

    Args:
        first: Permutations of 0..L-1, integer [B, L] with L from 1 on.
        second: Permutations of 0..L-1, integer [B, L], on the same device.

    Returns:
        The distances on the same device, uint8 [B], or int32 [B] for L > 255.

    Raises:
        TypeError: One of the two is not of integers.
        ValueError: They differ in shape or device, or are not [B, L] with L from 1 on.
    """
    _require_sequences(first=first, second=second)
    if first.shape != second.shape:
        raise ValueError(f"orders of different shapes, {tuple(first.shape)} and {tuple(second.shape)}")
    length = first.shape[1]
    positions = torch.arange(length, dtype=torch.uint8 if length <= WORD_BITS else torch.int32, device=first.device)
    position_of = torch.empty_like(second, dtype=positions.dtype)
    position_of.scatter_(1, second.long(), positions.expand_as(second))
    return edit_distance_to_identity(position_of.gather(1, first.long()))


def edit_distance(
    first: Tensor, second: Tensor, first_lengths: Tensor | None = None, second_lengths: Tensor | None = None
) -> Tensor:
    """Computes the Levenshtein distance between the rows of two tensors of sequences, without a synchronisation.

    The table of the dynamic programme comes in words of 64 rows, each of which passes on the differences between
    neighbouring cells of its last row.

    Args:
        first: Sequences, integer [B, M]. Symbols may repeat, and fit in int64.
        second: Sequences, integer [B, N], on the same device.
        first_lengths: How many symbols of each first sequence count, integer [B], from 0 to M. None means all. A number
            outside counts as 0 or as M, for to find it would take a synchronisation.
        second_lengths: The same for the second sequences, from 0 to N.

    Returns:
        The distances on the same device, int32 [B].

    Raises:
        TypeError: Sequences or lengths are not of integers.
        ValueError: The shapes do not fit together, or the devices differ.
    """
    _require_sequences(first=first, second=second)
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"batches of different sizes, {first.shape[0]} and {second.shape[0]}")
    symbols = torch.int32 if {first.dtype, second.dtype} <= INT32_DTYPES else torch.int64
    return _sequences(
        first.to(symbols),
        second.to(symbols),
        _clamped_lengths(first, first_lengths),
        _clamped_lengths(second, second_lengths),
    )


def _clamped_lengths(sequences: Tensor, lengths: Tensor | None) -> Tensor:
    """Computes how many symbols of each row count, int32 [B]."""
    batch, longest = sequences.shape
    if lengths is None:
        return torch.full((batch,), longest, dtype=torch.int32, device=sequences.device)
    if lengths.dtype not in INTEGER_DTYPES:
        raise TypeError(f"lengths are {lengths.dtype}, not integers")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths are {tuple(lengths.shape)}, not ({batch},) as the batch")
    if lengths.device != sequences.device:
        raise ValueError(f"lengths are on {lengths.device}, sequences on {sequences.device}")
    return lengths.long().clamp(0, longest).to(torch.int32)


def _require_sequences(**sequences: Tensor) -> None:
    for name, tensor in sequences.items():
        if tensor.dtype not in INTEGER_DTYPES:
            raise TypeError(f"{name} is {tensor.dtype}, not integers")
        if tensor.dim() != 2:
            raise ValueError(f"{name} has {tensor.dim()} dimensions, not 2: batch and length")
    devices = {str(tensor.device) for tensor in sequences.values()}
    if len(devices) > 1:
        raise ValueError(f"sequences on different devices, {' and '.join(sorted(devices))}")


_to_identity = register_operation(
    "edit_distance_to_identity(Tensor order) -> Tensor",  # of uint8, L <= 64
    reference=to_identity_reference,
    cpu=to_identity_cpu,
    kernel=launch_to_identity,
    fake=empty_to_identity,
)
_sequences = register_operation(
    "edit_distance(Tensor first, Tensor second, Tensor first_lengths, Tensor second_lengths) -> Tensor",
    reference=sequences_reference,
    kernel=launch_sequences,
    fake=empty_sequences,
)
