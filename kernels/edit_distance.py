"""Levenshtein distance of frame orders, batched on the device that holds them."""

from __future__ import annotations

import torch
from torch import Tensor


def edit_distance_to_identity(order: Tensor) -> Tensor:
    """Levenshtein distance between each row and 0, 1, ..., L - 1.

    order: integer [B, L], rows are permutations of 0..L-1, L up to 255. Returns uint8 [B] on the same device, without
    a synchronisation.

    The bit-vector algorithm of Myers (J. ACM 46(3), 1999) in Hyyrö's form (2003): column j of the dynamic programme is
    held as two bit vectors of vertical differences, +1 in `up` and -1 in `down`. Against the identity the positions
    that match symbol c are the single bit c, so no table is needed. Lengths above 63 use the plain recurrence.
    """
    length = order.shape[1]
    if length > 63:
        return _by_rows(order)
    symbols = order.long()
    one = torch.ones_like(symbols[:, 0])
    up, down = -one, torch.zeros_like(one)
    for j in range(length):
        match = one << symbols[:, j]
        diagonal = (((match & up) + up) ^ up) | match | down
        right = down | ~(diagonal | up)
        left = diagonal & up
        right = (right << 1) | 1
        up = (left << 1) | ~(diagonal | right)
        down = right & diagonal
    bits = torch.arange(length, device=order.device)
    differences = ((up[:, None] >> bits) & 1) - ((down[:, None] >> bits) & 1)
    return (length + differences.sum(1)).to(torch.uint8)


def _by_rows(order: Tensor) -> Tensor:
    """Wagner and Fischer's recurrence over whole rows of the table.

    The insertion chain within a row, D[i] = min(D[i], D[i-1] + 1), is a running minimum of D[i] - i.
    """
    batch, length = order.shape
    identity = torch.arange(length, device=order.device)
    ramp = torch.arange(length + 1, device=order.device)
    row = ramp.expand(batch, -1)
    for j in range(length):
        substituted = row[:, :-1] + (order[:, j, None] != identity)
        deleted = row + 1
        best = torch.cat([deleted[:, :1], torch.minimum(deleted[:, 1:], substituted)], dim=1)
        row = torch.cummin(best - ramp, dim=1).values + ramp
    return row[:, -1].to(torch.uint8)
