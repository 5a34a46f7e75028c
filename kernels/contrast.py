"""Contrast of anchors with their positives and a queue of negatives (InfoNCE), without ever forming the [N, K] logits.

The queue has no gradient, so the gradient of a log-sum-exp with respect to its anchor is an average of the queue,
weighted by the softmax, over T. The forward pass collects this average on the way (attention in which keys and values
are one), and the backward pass does not look at the queue again: 4 NKD operations in all, against 6 for recomputing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from cacl.kernels.dispatch import operation, widened

LARGEST_DIM = 512
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Contrast(NamedTuple):
    """float32. The second and the last are for metrics and carry no gradient."""

    loss: Tensor
    """[N, P]"""
    similarity: Tensor
    """[N, P]: a . p."""
    logsumexp: Tensor
    """[N]: log(sum_k exp(a . queue_k / T))."""
    max_negative_logit: Tensor
    """[N]: the largest a . queue_k / T."""


def queue_contrast(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float | Tensor) -> Contrast:
    """-log(e^(s/T) / (e^(s/T) + sum_k e^(n_k/T))) for every positive p of every anchor a: s = a . p, n_k = a . queue_k.

    anchors: [N, D], positives: [N, P, D], queue: [K, D], of one device and dtype (float32, bfloat16, float16, on a CPU
    also float64); any N and P, K from 1 on, D up to 512. temperature: a number, or a tensor there that holds one.
    Several kinds of anchors are rows of one call, which reads the queue once for all.

    Gradients go to anchors, positives and temperature. The other positives of an anchor are in no denominator. Sums are
    float32 whatever the inputs are, and the same from run to run on the same machine. Oord et al. (2018), equation 4.

    Raises ValueError if shapes, dtypes or devices do not fit, or if the queue requires a gradient.
    """
    _check(anchors, positives, queue)
    return Contrast(*_QueueContrast.apply(anchors, positives, queue, scalar(temperature, anchors)))


def scalar(temperature: float | Tensor, like: Tensor) -> Tensor:
    """float32 (float64 if the features are) without dimensions, on their device. Raises ValueError if it is none."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    if not isinstance(temperature, Tensor):
        return torch.full((), temperature, dtype=dtype, device=like.device)
    if temperature.numel() != 1 or temperature.device != like.device:
        given = f"temperature {list(temperature.shape)} on {temperature.device}"
        raise ValueError(f"{given}: give a number, or a tensor that holds one, on {like.device}")
    return temperature.to(dtype).reshape(())


def _check(anchors: Tensor, positives: Tensor, queue: Tensor) -> None:
    named = {"anchors": anchors, "positives": positives, "queue": queue}
    n, d = anchors.shape if anchors.ndim == 2 else (-1, -1)
    fits = positives.ndim == 3 and queue.ndim == 2 and (*positives.shape[::2], queue.shape[1]) == (n, d, d)
    if not fits or len(queue) == 0 or not 0 < d <= LARGEST_DIM:
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in named.items())
        raise ValueError(f"{shapes}: give [N, D], [N, P, D] and [K, D] with K from 1 on and D from 1 to {LARGEST_DIM}")
    for what in ("dtype", "device"):
        if len({getattr(x, what) for x in named.values()}) > 1:
            given = ", ".join(f"{name} {getattr(x, what)}" for name, x in named.items())
            raise ValueError(f"{given}: give tensors of one {what}")
    require_floating(anchors=anchors)
    if queue.requires_grad:
        raise ValueError("the queue requires a gradient, and gets none: keys in it are constants, detach them")


def require_floating(**named: Tensor) -> None:
    for name, x in named.items():
        if x.dtype not in DTYPES and (x.dtype != torch.float64 or x.is_cuda):
            raise ValueError(f"{name} {x.dtype}: give float32, bfloat16 or float16, or on a CPU float64")


class _QueueContrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor) -> Any:
        loss, similarity, logsumexp, max_negative_logit, mean = _forward(anchors, positives, queue, temperature)
        ctx.save_for_backward(anchors, positives, temperature, similarity, logsumexp, mean)
        ctx.mark_non_differentiable(similarity, max_negative_logit)
        return loss, similarity, logsumexp, max_negative_logit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss, _, logsumexp, _ = gradients
        _, positives_too, _, temperature_too = ctx.needs_input_grad
        anchors, positives, temperature = _backward(loss, logsumexp, *ctx.saved_tensors, positives_too)
        return anchors, positives if positives_too else None, None, temperature.sum() if temperature_too else None


# --- In torch

ROWS, ELEMENTS = 2**11, 2**22
"""On a CPU: anchors at a time, and logits at a time (16 MiB). Smaller parts would stay nearer to the processor, but
threads wait for each other after every step, which takes long on cores that a loader keeps busy too."""


def forward_reference(
    anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """loss, similarity [N, P]; logsumexp, highest [N]; mean [N, D]: the softmax-weighted average of the queue."""
    loss, similarity, logsumexp, max_negative_logit, mean = _empty_forward(anchors, positives, queue, temperature)
    at_once = ROWS if anchors.is_cpu else max(1, len(anchors))
    for first in range(0, len(anchors), at_once):
        rows = slice(first, first + at_once)
        scaled = anchors[rows].to(mean.dtype) / temperature
        keys_at_once = max(1, ELEMENTS // len(scaled)) if anchors.is_cpu else len(queue)
        logsumexp[rows], max_negative_logit[rows], mean[rows] = _scan(scaled, queue, keys_at_once)
    similarity.copy_(torch.einsum("nd,npd->np", anchors.to(mean.dtype), positives.to(mean.dtype)))
    # From e^40 on a 1 is nothing beside it, in float64 either.
    loss.copy_(F.softplus(logsumexp[:, None] - similarity / temperature, threshold=40))
    return loss, similarity, logsumexp, max_negative_logit, mean


def _scan(scaled: Tensor, queue: Tensor, keys_at_once: int) -> tuple[Tensor, Tensor, Tensor]:
    """logsumexp, highest [n] and mean [n, D] for anchors over T, a part of the queue at a time."""
    max_negative_logit = scaled.new_full((len(scaled),), float("-inf"))
    total, mean = torch.zeros_like(max_negative_logit), torch.zeros_like(scaled)
    for keys in queue.split(keys_at_once):
        keys = keys.to(scaled.dtype)
        logits = scaled @ keys.T
        before, max_negative_logit = max_negative_logit, torch.maximum(max_negative_logit, logits.amax(1))
        weights = logits.sub_(max_negative_logit[:, None]).exp_()
        fade = (before - max_negative_logit).exp()
        total = total * fade + weights.sum(1)
        mean = torch.addmm(mean * fade[:, None], weights, keys)
    return max_negative_logit + total.log(), max_negative_logit, mean / total[:, None]


def backward_reference(
    d_loss: Tensor,
    d_logsumexp: Tensor,
    anchors: Tensor,
    positives: Tensor,
    temperature: Tensor,
    similarity: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    positives_too: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of anchors [N, D], positives [N, P, D] (empty if not wanted), and of T by anchor [N]."""
    weights = d_loss * torch.sigmoid(logsumexp[:, None] - similarity / temperature)
    pull = torch.einsum("np,npd->nd", weights, positives.to(weights.dtype))
    d_anchors = ((weights.sum(1) + d_logsumexp)[:, None] * mean - pull) / temperature
    d_temperature = -(d_anchors * anchors).sum(1) / temperature
    wanted = slice(None) if positives_too else slice(0)
    d_positives = (-weights / temperature)[wanted, :, None] * anchors[wanted, None]
    return d_anchors.to(anchors.dtype), d_positives.to(positives.dtype), d_temperature


# --- In Triton

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def scan_kernel(
    anchors,
    queue,
    temperature,
    max_negative_logit,
    total,
    mean,
    n,
    k,
    keys_of_split,
    D: tl.constexpr,
    SLICE: tl.constexpr,
    SLICES: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """For a block of anchors and a part of the queue: highest and total [splits, N], mean [splits, N, D], in base 2 and
    before the division by the total. The D dimensions come in slices, since the operands of a product of float32 live
    in registers, which whole ones do not fit."""
    # Whole blocks are counted in 64 bits, what is within one in 32: these numbers stay in registers all along.
    block, split = tl.program_id(0).to(tl.int64) * ROWS, tl.program_id(1).to(tl.int64)
    rows, rank_offset = tl.arange(0, ROWS), tl.arange(0, KEYS)
    remaining = (n - block).to(tl.int32)
    begin = split * keys_of_split
    count = tl.minimum(keys_of_split, k - begin).to(tl.int32)
    scale = LOG2_E / tl.load(temperature)
    # The largest weight is 1. Half precision ends at 2**-24, and many small ones add up: so it gets them times this.
    unit = 32768.0 if queue.dtype.element_ty == tl.float16 else 1.0
    a = ()
    averages = ()
    for i in tl.static_range(SLICES):
        a = a + (load_rows(anchors + block * D, rows, remaining, i * SLICE, D, SLICE, WIDEN),)
        averages = averages + (tl.zeros((ROWS, SLICE), tl.float32),)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)

    for first in range(0, count, KEYS):
        part, left = queue + (begin + first) * D, count - first
        logits = tl.zeros((ROWS, KEYS), tl.float32)
        for i in tl.static_range(SLICES):
            keys = load_rows(part, rank_offset, left, i * SLICE, D, SLICE, WIDEN)
            logits = tl.dot(a[i], tl.trans(keys), logits, input_precision=PRECISION)
        logits = tl.where(rank_offset[None, :] < left, logits * scale, float("-inf"))
        before, best = best, tl.maximum(best, tl.max(logits, 1))
        fade, weights = tl.exp2(before - best), tl.exp2(logits - best[:, None])
        weight = weight * fade + tl.sum(weights, 1)
        updated = ()
        for i in tl.static_range(SLICES):
            keys = load_rows(part, rank_offset, left, i * SLICE, D, SLICE, WIDEN)
            average = averages[i] * fade[:, None]
            shares = (weights * unit).to(keys.dtype)
            updated = updated + (tl.dot(shares, keys, average, input_precision=PRECISION),)
        averages = updated

    out = split * n + block
    tl.store(max_negative_logit + out + rows, best, mask=rows < remaining)
    tl.store(total + out + rows, weight, mask=rows < remaining)
    for i in tl.static_range(SLICES):
        store_rows(mean + out * D, averages[i] / unit, rows, remaining, i * SLICE, D, SLICE)


@triton.jit
def load_rows(x, rows, n, first, D: tl.constexpr, SLICE: tl.constexpr, WIDEN: tl.constexpr):
    """Dimensions first, first + 1, ... of these rows of x [n, D]; 0 outside. `first` is added to the pointer and not
    to the offsets, so that all slices share the registers that hold these."""
    dims = tl.arange(0, SLICE)
    mask = (rows[:, None] < n) & (dims[None, :] < D - first)
    values = tl.load(x + first + rows[:, None] * D + dims[None, :], mask=mask, other=0.0)
    return values.to(tl.float32) if WIDEN else values


@triton.jit
def store_rows(x, values, rows, n, first, D: tl.constexpr, SLICE: tl.constexpr):
    dims = tl.arange(0, SLICE)
    tl.store(
        x + first + rows[:, None] * D + dims[None, :], values, mask=(rows[:, None] < n) & (dims[None, :] < D - first)
    )


@triton.jit
def finish_kernel(
    anchors,
    positives,
    temperature,
    part_highest,
    part_total,
    part_mean,
    loss,
    similarity,
    logsumexp,
    max_negative_logit,
    mean,
    n,
    splits,
    count,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Joins the parts of the queue, then meets the positives."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    dims = tl.arange(0, WIDTH)
    inside, real = rows < n, (rows[:, None] < n) & (dims[None, :] < D)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    for split in range(splits):
        best = tl.maximum(best, tl.load(part_highest + split * n + rows, mask=inside, other=0.0))
    weight = tl.zeros((ROWS,), tl.float32)
    average = tl.zeros((ROWS, WIDTH), tl.float32)
    for split in range(splits):
        at = split * n + rows
        fade = tl.exp2(tl.load(part_highest + at, mask=inside, other=0.0) - best)
        weight += fade * tl.load(part_total + at, mask=inside, other=1.0)
        average += fade[:, None] * tl.load(part_mean + at[:, None] * D + dims[None, :], mask=real, other=0.0)
    of_row = (best + tl.log2(weight)) * LN_2
    tl.store(logsumexp + rows, of_row, mask=inside)
    tl.store(max_negative_logit + rows, best * LN_2, mask=inside)
    tl.store(mean + rows[:, None] * D + dims[None, :], average / weight[:, None], mask=real)

    inverse = 1.0 / tl.load(temperature)
    a = tl.load(anchors + rows[:, None] * D + dims[None, :], mask=real, other=0.0).to(tl.float32)
    for number in range(count):
        at = rows * count + number
        p = tl.load(positives + at[:, None] * D + dims[None, :], mask=real, other=0.0).to(tl.float32)
        cosine = tl.sum(a * p, 1)
        tl.store(similarity + at, cosine, mask=inside)
        tl.store(loss + at, _softplus(of_row - cosine * inverse), mask=inside)


@triton.jit
def _softplus(x):
    """log(1 + e^x), exact for small e^x too: Kahan's form of log(1 + u)."""
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
    count,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    POSITIVES_TOO: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    dims = tl.arange(0, WIDTH)
    inside, real = rows < n, (rows[:, None] < n) & (dims[None, :] < D)
    of_rows = rows[:, None] * D + dims[None, :]
    inverse = 1.0 / tl.load(temperature)
    a = tl.load(anchors + of_rows, mask=real, other=0.0).to(tl.float32)
    of_row = tl.load(logsumexp + rows, mask=inside, other=0.0)
    push = tl.load(d_logsumexp + rows, mask=inside, other=0.0)
    pull = tl.zeros((ROWS, WIDTH), tl.float32)
    for number in range(count):
        at = rows * count + number
        x = of_row - tl.load(similarity + at, mask=inside, other=0.0) * inverse
        weight = tl.load(d_loss + at, mask=inside, other=0.0) * tl.sigmoid(x)
        of_positive = at[:, None] * D + dims[None, :]
        pull += weight[:, None] * tl.load(positives + of_positive, mask=real, other=0.0).to(tl.float32)
        push += weight
        if POSITIVES_TOO:
            d_positive = -weight[:, None] * inverse * a
            tl.store(d_positives + of_positive, d_positive.to(d_positives.dtype.element_ty), mask=real)
    d_a = (push[:, None] * tl.load(mean + of_rows, mask=real, other=0.0) - pull) * inverse
    tl.store(d_anchors + of_rows, d_a.to(d_anchors.dtype.element_ty), mask=real)
    tl.store(d_temperature + rows, -tl.sum(d_a * a, 1) * inverse, mask=inside)


class Tiling(NamedTuple):
    """Of `scan_kernel`."""

    rows: int
    keys: int
    slice: int
    """Dimensions that are multiplied at a time."""
    warps: int
    stages: int


def tiling(d: int, dtype: torch.dtype) -> Tiling:
    """The largest that no GPU since Ampere runs out of registers or shared memory with, as told by the assembler in
    tests/kernels/test_compiled_contrast.py."""
    width = max(16, triton.next_power_of_2(d))
    if dtype == torch.float32:
        return {512: Tiling(16, 16, 64, 8, 2), 256: Tiling(16, 32, 64, 8, 2), 128: Tiling(32, 32, 64, 8, 2)}.get(
            width, Tiling(32, 64, width, 8, 2)
        )
    return {512: Tiling(32, 32, 128, 8, 2), 256: Tiling(64, 32, 128, 8, 2)}.get(width, Tiling(128, 64, width, 8, 3))


MOST_SPLITS, FEWEST_TILES = 32, 4
"""Of the queue, and of keys in each: what parts write, to be read again, must not count."""


def splits_of(blocks: int, tiles: int, multiprocessors: int) -> int:
    """Into how many parts the queue is split so that the multiprocessors finish soonest: each of `blocks` blocks of
    anchors meets `tiles` tiles of keys, and each multiprocessor has one program at a time."""
    most = max(1, min(MOST_SPLITS, tiles // FEWEST_TILES))

    def longest(splits: int) -> int:
        return triton.cdiv(blocks * splits, multiprocessors) * triton.cdiv(tiles, splits)

    return min(range(1, most + 1), key=lambda splits: (longest(splits), splits))


def multiprocessors(device: torch.device) -> int:
    # For the interpreter as many as make it split the queue.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


def scan(anchors: Tensor, queue: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """highest and total [splits, N], mean [splits, N, D], as `scan_kernel` makes them."""
    (n, d), k = anchors.shape, len(queue)
    tile = tiling(d, anchors.dtype)
    blocks, tiles = triton.cdiv(n, tile.rows), triton.cdiv(k, tile.keys)
    keys_of_split = triton.cdiv(tiles, splits_of(blocks, tiles, multiprocessors(anchors.device))) * tile.keys
    splits = triton.cdiv(k, keys_of_split)
    max_negative_logit, total = anchors.new_empty(2, splits, n, dtype=torch.float32).unbind()
    mean = anchors.new_empty(splits, n, d, dtype=torch.float32)
    scan_kernel[(blocks, splits)](
        anchors,
        queue,
        temperature,
        max_negative_logit,
        total,
        mean,
        n,
        k,
        keys_of_split,
        D=d,
        SLICE=tile.slice,
        SLICES=triton.cdiv(d, tile.slice),
        ROWS=tile.rows,
        KEYS=tile.keys,
        PRECISION="tf32x3",
        WIDEN=widened(anchors),
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=True,
    )
    return max_negative_logit, total, mean


FINISHING_ELEMENTS = 2048
"""Elements of an embedding that a program of the two small kernels holds."""


def _forward_kernel(
    anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    outputs = _empty_forward(anchors, positives, queue, temperature)
    (n, d), count = anchors.shape, positives.shape[1]
    if n == 0:
        return outputs
    anchors, positives = anchors.contiguous(), positives.contiguous()
    parts = scan(anchors, queue.contiguous(), temperature)
    width = triton.next_power_of_2(d)
    rows = FINISHING_ELEMENTS // width
    finish_kernel[(triton.cdiv(n, rows),)](
        anchors,
        positives,
        temperature,
        *parts,
        *outputs,
        n,
        len(parts[0]),
        count,
        D=d,
        WIDTH=width,
        ROWS=rows,
        enable_fp_fusion=True,
    )
    return outputs


def _backward_kernel(
    d_loss: Tensor,
    d_logsumexp: Tensor,
    anchors: Tensor,
    positives: Tensor,
    temperature: Tensor,
    similarity: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    positives_too: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = (d_loss, d_logsumexp, anchors, positives, temperature, similarity, logsumexp, mean)
    outputs = _empty_backward(*inputs, positives_too)
    (n, d), count = anchors.shape, positives.shape[1]
    if n == 0:
        return outputs
    width = triton.next_power_of_2(d)
    rows = FINISHING_ELEMENTS // width
    backward_kernel[(triton.cdiv(n, rows),)](
        *(x.contiguous() for x in inputs),
        *outputs,
        n,
        count,
        D=d,
        WIDTH=width,
        ROWS=rows,
        POSITIVES_TOO=positives_too,
        enable_fp_fusion=True,
    )
    return outputs


# --- Registered


def _empty_forward(
    anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(anchors.dtype, torch.float32)
    shapes = positives.shape[:2], positives.shape[:2], anchors.shape[:1], anchors.shape[:1], anchors.shape
    loss, similarity, logsumexp, max_negative_logit, mean = (anchors.new_empty(shape, dtype=dtype) for shape in shapes)
    return loss, similarity, logsumexp, max_negative_logit, mean


def _empty_backward(
    d_loss: Tensor,
    d_logsumexp: Tensor,
    anchors: Tensor,
    positives: Tensor,
    temperature: Tensor,
    similarity: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    positives_too: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n, *rest = positives.shape  # of which len() would make a constant under torch.compile
    d_positives = positives.new_empty(n if positives_too else 0, *rest)
    return anchors.new_empty(anchors.shape), d_positives, torch.empty_like(logsumexp)


SMALL = 10_000_000
"""Logits, N x K, below which a GPU takes longer to launch the kernels than to multiply in torch: they then fit into
40 MB. From the floors in the design of these kernels; `cacl bench-kernels` shows both sides of it."""


def _small(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: Tensor) -> bool:
    return len(anchors) * len(queue) < SMALL


_forward = operation(
    "queue_contrast(Tensor anchors, Tensor positives, Tensor queue, Tensor temperature)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=forward_reference,
    kernel=_forward_kernel,
    shapes=_empty_forward,
    small=_small,
)
_backward = operation(
    "queue_contrast_backward(Tensor d_loss, Tensor d_logsumexp, Tensor anchors, Tensor positives, Tensor temperature,"
    " Tensor similarity, Tensor logsumexp, Tensor mean, bool positives_too) -> (Tensor, Tensor, Tensor)",
    reference=backward_reference,
    kernel=_backward_kernel,
    shapes=_empty_backward,
)
