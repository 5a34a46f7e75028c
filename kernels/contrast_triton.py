"""The contrast with a queue in Triton: its kernels and their launches.

The forward pass has two kernels. `scan_kernel` walks over the queue as flash attention does whose keys are its values,
and `finish_kernel` joins the splits of the queue and adds the positives. In the kernels m, l, acc and alpha are what
they are in flash attention: the running maximum of the logits, the sum of the weights relative to it, the sum of
the weighted keys, and the factor by which sums fade when the maximum grows. Logits are in base 2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cacl.kernels.common import (
    FLOAT32_PRECISION,
    LN_2,
    LOG2_E,
    add_weighted_columns,
    contrast_tile,
    dot_columns,
    grid_of,
    load_slices,
    needs_widening,
    scale_slices,
    store_slice,
    zero_slices,
)
from cacl.kernels.contrast_reference import empty_backward, empty_forward

# --- Kernels


@triton.jit
def scan_kernel(
    anchors,
    queue,
    temperature,
    split_m,
    split_l,
    split_acc,
    n,
    k,
    keys_per_split,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Computes m, l and acc for a block of anchors and a split of the queue.

    anchors is [N, D] and queue [K, D] of the same dtype. m and l are float32 [splits, N],
    acc is float32 [splits, N, D].
    """
    # Whole blocks are counted in 64 bits and what is within one in 32, since these numbers stay in registers all along.
    first_row, split = tl.program_id(0).to(tl.int64) * BLOCK_N, tl.program_id(1).to(tl.int64)
    row, key = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    rows_left = (n - first_row).to(tl.int32)
    first_key = split * keys_per_split
    count = tl.minimum(keys_per_split, k - first_key).to(tl.int32)
    scale = LOG2_E / tl.load(temperature)
    # The largest weight is 1. Half precision ends at 2**-24, and many small weights add up, so it gets them times this.
    half_scale = 32768.0 if queue.dtype.element_ty == tl.float16 else 1.0
    a = load_slices(anchors + first_row * D, row, rows_left, D, BLOCK_D, NUM_SLICES, WIDEN)  # [BLOCK_N, BLOCK_D] each
    acc = zero_slices(BLOCK_N, BLOCK_D, NUM_SLICES)  # [BLOCK_N, BLOCK_D] each
    m = tl.full((BLOCK_N,), float("-inf"), tl.float32)  # [BLOCK_N]
    l = tl.zeros((BLOCK_N,), tl.float32)  # [BLOCK_N]

    for start in range(0, count, BLOCK_K):
        keys, keys_left = queue + (first_key + start) * D, count - start
        logits = dot_columns(a, keys, key, keys_left, D, BLOCK_N, BLOCK_K, BLOCK_D, NUM_SLICES, PRECISION, WIDEN)
        logits = tl.where(key[None, :] < keys_left, logits * scale, float("-inf"))  # [BLOCK_N, BLOCK_K]
        m_before, m = m, tl.maximum(m, tl.max(logits, 1))
        alpha, p = tl.exp2(m_before - m), tl.exp2(logits - m[:, None])  # [BLOCK_N], [BLOCK_N, BLOCK_K]
        l = l * alpha + tl.sum(p, 1)
        acc = scale_slices(acc, alpha[:, None], NUM_SLICES)
        acc = add_weighted_columns(acc, p * half_scale, keys, key, keys_left, D, BLOCK_D, NUM_SLICES, PRECISION, WIDEN)

    out = split * n + first_row
    tl.store(split_m + out + row, m, mask=row < rows_left)
    tl.store(split_l + out + row, l, mask=row < rows_left)
    for i in tl.static_range(NUM_SLICES):
        store_slice(split_acc + out * D, acc[i] / half_scale, row, rows_left, i * BLOCK_D, D, BLOCK_D)


@triton.jit
def finish_kernel(
    anchors,
    positives,
    temperature,
    split_m,
    split_l,
    split_acc,
    loss,
    similarity,
    logsumexp,
    max_negative_logit,
    mean,
    n,
    splits,
    num_positives,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Joins the splits of the queue for a block of anchors, then contrasts these with their positives.

    positives is [N, P, D]. loss and similarity are float32 [N, P], logsumexp and max_negative_logit float32 [N], and
    mean is float32 [N, D].
    """
    row = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    dim = tl.arange(0, BLOCK_D)  # all D of them
    inside, inside_2d = row < n, (row[:, None] < n) & (dim[None, :] < D)
    m = tl.full((BLOCK_N,), float("-inf"), tl.float32)  # [BLOCK_N]
    for split in range(splits):
        m = tl.maximum(m, tl.load(split_m + split * n + row, mask=inside, other=0.0))
    l = tl.zeros((BLOCK_N,), tl.float32)  # [BLOCK_N]
    acc = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)  # [BLOCK_N, BLOCK_D]
    for split in range(splits):
        at = split * n + row
        alpha = tl.exp2(tl.load(split_m + at, mask=inside, other=0.0) - m)  # [BLOCK_N]
        l += alpha * tl.load(split_l + at, mask=inside, other=1.0)
        acc += alpha[:, None] * tl.load(split_acc + at[:, None] * D + dim[None, :], mask=inside_2d, other=0.0)
    lse = (m + tl.log2(l)) * LN_2  # [BLOCK_N]
    tl.store(logsumexp + row, lse, mask=inside)
    tl.store(max_negative_logit + row, m * LN_2, mask=inside)
    tl.store(mean + row[:, None] * D + dim[None, :], acc / l[:, None], mask=inside_2d)

    inverse = 1.0 / tl.load(temperature)
    a = tl.load(anchors + row[:, None] * D + dim[None, :], mask=inside_2d, other=0.0).to(tl.float32)
    for number in range(num_positives):
        at = row * num_positives + number
        positive = tl.load(positives + at[:, None] * D + dim[None, :], mask=inside_2d, other=0.0).to(tl.float32)
        cosine = tl.sum(a * positive, 1)  # [BLOCK_N]
        tl.store(similarity + at, cosine, mask=inside)
        tl.store(loss + at, _softplus(lse - cosine * inverse), mask=inside)


@triton.jit
def _softplus(x):
    """Computes log(1 + e^x), exact for small e^x too, by Kahan's form of log(1 + u)."""
    u = tl.exp(-tl.abs(x))
    w = 1.0 + u
    return tl.maximum(x, 0.0) + tl.log(w) - ((w - 1.0) - u) / w


@triton.jit
def backward_kernel(
    d_loss,
    d_logsumexp,
    anchors,
    positives,
    temperature,
    similarity,
    logsumexp,
    mean,
    d_anchors,
    d_positives,
    d_temperature,
    n,
    num_positives,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    NEEDS_D_POSITIVES: tl.constexpr,
):
    """Computes the gradients of a block of anchors, of their positives, and of the temperature for each anchor.

    d_anchors is [N, D], d_positives [N, P, D], and d_temperature float32 [N].
    """
    row = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    dim = tl.arange(0, BLOCK_D)  # all D of them
    inside, inside_2d = row < n, (row[:, None] < n) & (dim[None, :] < D)
    of_rows = row[:, None] * D + dim[None, :]
    inverse = 1.0 / tl.load(temperature)
    a = tl.load(anchors + of_rows, mask=inside_2d, other=0.0).to(tl.float32)  # [BLOCK_N, BLOCK_D]
    lse = tl.load(logsumexp + row, mask=inside, other=0.0)  # [BLOCK_N]
    mean_weight = tl.load(d_logsumexp + row, mask=inside, other=0.0)  # [BLOCK_N]
    positives_sum = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)  # [BLOCK_N, BLOCK_D]
    for number in range(num_positives):
        at = row * num_positives + number
        x = lse - tl.load(similarity + at, mask=inside, other=0.0) * inverse
        weight = tl.load(d_loss + at, mask=inside, other=0.0) * tl.sigmoid(x)  # [BLOCK_N]
        of_positive = at[:, None] * D + dim[None, :]
        positives_sum += weight[:, None] * tl.load(positives + of_positive, mask=inside_2d, other=0.0).to(tl.float32)
        mean_weight += weight
        if NEEDS_D_POSITIVES:
            d_positive = -weight[:, None] * inverse * a
            tl.store(d_positives + of_positive, d_positive.to(d_positives.dtype.element_ty), mask=inside_2d)
    d_a = (mean_weight[:, None] * tl.load(mean + of_rows, mask=inside_2d, other=0.0) - positives_sum) * inverse
    tl.store(d_anchors + of_rows, d_a.to(d_anchors.dtype.element_ty), mask=inside_2d)
    tl.store(d_temperature + row, -tl.sum(d_a * a, 1) * inverse, mask=inside)


# --- Launches

ELEMENTS_PER_PROGRAM = 2048
"""How many elements of embeddings a program of `finish_kernel` or `backward_kernel` holds."""


def launch_scan(anchors: Tensor, queue: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Launches `scan_kernel`.

    Args:
        anchors: The anchors, [N, D], contiguous, N at least 1.
        queue: The keys, [K, D], contiguous.
        temperature: The temperature, float32 without dimensions.

    Returns:
        m and l, float32 [splits, N], and acc, float32 [splits, N, D], for every split of the queue.
    """
    (n, d), k = anchors.shape, len(queue)
    tile = contrast_tile(d, anchors.dtype)
    grid = grid_of(n, k, tile, anchors.device)
    split_m, split_l = anchors.new_empty(2, grid.splits, n, dtype=torch.float32).unbind()
    split_acc = anchors.new_empty(grid.splits, n, d, dtype=torch.float32)
    scan_kernel[grid.blocks, grid.splits](
        anchors=anchors,
        queue=queue,
        temperature=temperature,
        split_m=split_m,
        split_l=split_l,
        split_acc=split_acc,
        n=n,
        k=k,
        keys_per_split=grid.columns_per_split,
        D=d,
        BLOCK_D=tile.block_d,
        NUM_SLICES=triton.cdiv(d, tile.block_d),
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        PRECISION=FLOAT32_PRECISION,
        WIDEN=needs_widening(anchors),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        enable_fp_fusion=True,
    )
    return split_m, split_l, split_acc


def launch_forward(
    anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Runs the forward pass on the GPU; arguments and results are those of `forward_reference`."""
    outputs = empty_forward(anchors, positives, queue, temperature)
    loss, similarity, logsumexp, max_negative_logit, mean = outputs
    (n, d), num_positives = anchors.shape, positives.shape[1]
    if n == 0:
        return outputs
    anchors, positives = anchors.contiguous(), positives.contiguous()
    split_m, split_l, split_acc = launch_scan(anchors, queue.contiguous(), temperature)
    block_d = triton.next_power_of_2(d)
    block_n = ELEMENTS_PER_PROGRAM // block_d
    finish_kernel[(triton.cdiv(n, block_n),)](
        anchors=anchors,
        positives=positives,
        temperature=temperature,
        split_m=split_m,
        split_l=split_l,
        split_acc=split_acc,
        loss=loss,
        similarity=similarity,
        logsumexp=logsumexp,
        max_negative_logit=max_negative_logit,
        mean=mean,
        n=n,
        splits=len(split_m),
        num_positives=num_positives,
        D=d,
        BLOCK_D=block_d,
        BLOCK_N=block_n,
        enable_fp_fusion=True,
    )
    return outputs


def launch_backward(
    d_loss: Tensor,
    d_logsumexp: Tensor,
    anchors: Tensor,
    positives: Tensor,
    temperature: Tensor,
    similarity: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    needs_d_positives: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs the backward pass on the GPU; arguments and results are those of `backward_reference`."""
    inputs = (d_loss, d_logsumexp, anchors, positives, temperature, similarity, logsumexp, mean)
    d_anchors, d_positives, d_temperature = empty_backward(*inputs, needs_d_positives)
    (n, d), num_positives = anchors.shape, positives.shape[1]
    if n == 0:
        return d_anchors, d_positives, d_temperature
    block_d = triton.next_power_of_2(d)
    block_n = ELEMENTS_PER_PROGRAM // block_d
    backward_kernel[(triton.cdiv(n, block_n),)](
        d_loss=d_loss.contiguous(),
        d_logsumexp=d_logsumexp.contiguous(),
        anchors=anchors.contiguous(),
        positives=positives.contiguous(),
        temperature=temperature.contiguous(),
        similarity=similarity.contiguous(),
        logsumexp=logsumexp.contiguous(),
        mean=mean.contiguous(),
        d_anchors=d_anchors,
        d_positives=d_positives,
        d_temperature=d_temperature,
        n=n,
        num_positives=num_positives,
        D=d,
        BLOCK_D=block_d,
        BLOCK_N=block_n,
        NEEDS_D_POSITIVES=needs_d_positives,
        enable_fp_fusion=True,
    )
    return d_anchors, d_positives, d_temperature
