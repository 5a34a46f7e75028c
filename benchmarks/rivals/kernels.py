"""How other people compute what our kernels compute: what `cacl bench-kernels` measures them against.

Published packages that need no [N, K] either are not among them; docs/kernels.md says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.transforms import v2

from cacl.clips import ViewPlan
from cacl.kernels.edit_distance_reference import CHUNK_ROWS, to_identity_reference
from cacl.loaders.backends.dali_views import DaliViews


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under torch.compile, for one setting.

    What was compiled before is dropped: another setting would count as a second form of the same function, of which
    torch keeps few.
    """
    torch.compiler.reset()
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # It warns that there is no GPU.
    return torch.compile(function, dynamic=False)


# --- Contrast with a queue. All take anchors [N, D], positives [N, P, D] and a queue [K, D], and return losses [N, P].


def moco_loss(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Computes it as the pseudocode of He et al. (2020): the positive and all negatives are classes."""
    negatives = anchors @ queue.T
    right = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)  # The first class is right.
    losses = []
    for positive in positives.unbind(1):
        logits = torch.cat([(anchors * positive).sum(1, keepdim=True), negatives], dim=1)
        losses.append(F.cross_entropy(logits / temperature, right, reduction="none"))
    return torch.stack(losses, dim=1)


def logsumexp_loss(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Computes the same without a copy of the logits for each positive."""
    negatives = torch.logsumexp(anchors @ queue.T / temperature, dim=1, keepdim=True)
    return F.softplus(negatives - torch.einsum("nd,npd->np", anchors, positives) / temperature)


def attention_loss(anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Computes the same by torch's flash attention.

    With the queue as keys and values it returns the log-sum-exp of the similarities and the average of the queue.
    """
    return _Attention.apply(anchors, positives, queue, temperature)  # pyright: ignore[reportReturnType]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, positives: Tensor, queue: Tensor, temperature: float) -> Tensor:
        aten = torch.ops.aten
        flash = (
            aten._scaled_dot_product_flash_attention
            if anchors.is_cuda
            else aten._scaled_dot_product_flash_attention_for_cpu
        )
        # The dimensions of batch and heads come first.
        query, keys = anchors[None, None], queue[None, None]
        mean, logsumexp, *_ = (x[0, 0] for x in flash(query, keys, keys, scale=1 / temperature)[:2])
        similarity = torch.einsum("nd,npd->np", anchors.float(), positives.float())
        logits = logsumexp[:, None] - similarity / temperature
        ctx.temperature = temperature
        ctx.save_for_backward(positives, mean, logits)
        return F.softplus(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        positives, mean, logits = ctx.saved_tensors
        weights = gradients[0] * torch.sigmoid(logits)
        positives_sum = torch.einsum("np,npd->nd", weights, positives.float())
        gradient = (weights.sum(1, keepdim=True) * mean - positives_sum) / ctx.temperature
        return gradient.to(positives.dtype), None, None, None


# --- Contrast of two views with each other, each [N, D]. The loss is [N].


def clip_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Computes it as the pseudocode of Radford et al. (2021)."""
    logits = first @ second.T / temperature
    right = torch.arange(len(first), device=first.device)
    forward = F.cross_entropy(logits, right, reduction="none")
    backward = F.cross_entropy(logits.T, right, reduction="none")
    return (forward + backward) / 2


# --- Edit distances of orders uint8 [B, L] to 0, 1, ..., L - 1. The distances are uint8 [B].


def official_edit_distance(order: Tensor) -> Tensor:
    """Computes them as the release of Guo et al. (CVPR 2022), row by row.

    The release calls the package Levenshtein, which is by those who made rapidfuzz, and computes with it.
    """
    distance = import_module("rapidfuzz.distance.Levenshtein").distance
    identity = "".join(map(chr, range(order.shape[1])))
    distances = [distance("".join(map(chr, row)), identity) for row in order.tolist()]
    return torch.tensor(distances, dtype=torch.uint8, device=order.device)


def rapidfuzz_batch(order: Tensor, workers: int) -> Tensor:
    """Computes all rows in one call, cut from one string of bytes: the fastest form found.

    Args:
        order: uint8 [B, L].
        workers: Threads; -1 takes all cores.

    Returns:
        uint8 [B].
    """
    rapidfuzz = import_module("rapidfuzz")
    length = order.shape[1]
    symbols = order.cpu().numpy().tobytes()
    rows = [symbols[at : at + length] for at in range(0, len(symbols), length)]
    scorer = rapidfuzz.distance.Levenshtein.distance
    distances = rapidfuzz.process.cdist(rows, [bytes(range(length))], scorer=scorer, workers=workers, dtype="uint8")
    return torch.from_numpy(distances[:, 0]).to(order.device)


def compiled_reference() -> Callable[[Tensor], Tensor]:
    """Our form in torch under torch.compile, in parts of one size: compiling all rows at once takes minutes."""
    of_part = compiled(to_identity_reference)

    def distances(order: Tensor) -> Tensor:
        parts = F.pad(order, (0, 0, 0, -len(order) % CHUNK_ROWS)).split(CHUNK_ROWS)
        return torch.cat([of_part(part) for part in parts])[: len(order)]

    return distances


# --- Views of B clips uint8 [T, H, W, 3], with B plans for each of V views. The views are V of float16 [B, 3, T, H, W].


def torchvision_views(frames: Sequence[Tensor], plans: Sequence[Sequence[ViewPlan]], size: int) -> list[Tensor]:
    """Makes them with torchvision.transforms.v2, a clip at a time."""
    return [
        torch.stack([_torchvision_view(clip, plan, size) for clip, plan in zip(frames, view, strict=True)])
        for view in plans
    ]


def _torchvision_view(frames: Tensor, plan: ViewPlan, size: int) -> Tensor:
    images = v2.functional.crop(frames.permute(0, 3, 1, 2), plan.top, plan.left, plan.side, plan.side)
    images = v2.functional.to_dtype(images, torch.float32, scale=True)
    images = v2.functional.resize(images, [size, size], antialias=True)
    if plan.flip:
        images = v2.functional.horizontal_flip(images)
    planes = images.transpose(0, 1)
    matrix = torch.from_numpy(plan.color).to(frames.device, non_blocking=True)
    return torch.addmm(matrix[:, 3:], matrix[:, :3], planes.reshape(3, -1)).half().view(planes.shape)


def dali_views(
    frames: Sequence[Tensor], plans: Sequence[Sequence[ViewPlan]], size: int
) -> Callable[[], Sequence[Tensor]]:
    """Makes them with the operators of our `dali` backend, in a graph that is fed with the frames where they are.

    Returns:
        A call that makes the views.
    """
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    views, device = DaliViews(size), frames[0].device
    inputs = [column for view in plans for column in views.view_inputs(view)]
    # Tensors of torch on a CPU would not do: DALI would ask the CUDA driver for the stream that they belong to.
    clips = list(frames) if device.type == "cuda" else [clip.numpy() for clip in frames]
    graph = Pipeline(
        batch_size=len(frames), num_threads=torch.get_num_threads(), device_id=device.index, prefetch_queue_depth=1
    )
    with graph:
        where = "gpu" if device.type == "cuda" else "cpu"
        shown = fn.external_source(lambda: clips, batch=True, device=where, layout="FHWC", no_copy=True)
        nodes = fn.external_source(lambda: inputs, num_outputs=len(inputs))
        graph.set_outputs(*views.graph_outputs([shown], nodes))
    graph.build()

    def run() -> Sequence[Tensor]:
        outputs = graph.run(torch.cuda.current_stream(device) if device.type == "cuda" else None)
        return views.to_tensors(outputs, plans)

    return run
