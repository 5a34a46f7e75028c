"""The contrast of anchors with positives and a queue in float64, as the formula is written.

It also says how far from the formula the operation may be, its kernels and its reference alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.kernels.contrast import QueueContrast, queue_contrast

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LEARNABLE = ("anchors", "positives", "temperature")


class Size(NamedTuple):
    """The sizes N, P, K and D, and the temperature T."""

    anchors: int
    positives: int
    keys: int
    dim: int
    temperature: float


SIZES = [
    Size(1, 1, 1, 1, 1.0),
    Size(5, 2, 2, 3, 0.07),
    Size(129, 7, 63, 16, 0.07),
    Size(252, 3, 64, 33, 1.0),
    Size(33, 8, 65, 100, 0.01),
    Size(64, 2, 1001, 123, 0.07),
    Size(300, 4, 65, 128, 0.01),
    Size(2, 5, 1001, 128, 0.07),
    Size(4, 6, 8193, 64, 1.0),
    Size(3, 1, 257, 252, 0.07),
    Size(17, 2, 130, 507, 0.01),
    Size(65, 1, 64, 512, 0.07),
]
"""These have one to many blocks of anchors, tiles of keys, splits of the queue and slices of dimensions, full ones and
not."""
LONG = Size(3, 2, 70_001, 16, 0.07)


class Given(NamedTuple):
    anchors: Tensor
    positives: Tensor
    queue: Tensor
    temperature: Tensor
    d_loss: Tensor
    """The gradient with respect to the losses, float32 as is T."""
    d_logsumexp: Tensor
    """The gradient with respect to the log-sum-exps, float32."""


class Result(NamedTuple):
    loss: Tensor
    similarity: Tensor
    logsumexp: Tensor
    max_negative_logit: Tensor
    d_anchors: Tensor
    d_positives: Tensor
    d_temperature: Tensor


def random_inputs(size: Size, dtype: torch.dtype) -> Given:
    """Draws unit vectors and rounds them to the dtype.

    Positives are near their anchors, for some anchors less so, and every third key is near an anchor too: so positives
    win and lose, and few keys or many weigh.
    """
    rng = np.random.default_rng((*size[:4], round(1000 * size.temperature)))
    anchors = rng.standard_normal((size.anchors, size.dim))
    spread = np.linspace(0.3, 1.5, size.anchors)[:, None, None]
    positives = anchors[:, None] + spread * rng.standard_normal((size.anchors, size.positives, size.dim))
    queue = rng.standard_normal((size.keys, size.dim))
    queue[::3] += 1.5 * anchors[rng.integers(0, size.anchors, len(queue[::3]))]
    return Given(
        unit(torch.from_numpy(anchors)).to(dtype),
        unit(torch.from_numpy(positives)).to(dtype),
        unit(torch.from_numpy(queue)).to(dtype),
        torch.tensor(size.temperature),
        torch.from_numpy(rng.standard_normal((size.anchors, size.positives))).float(),
        torch.from_numpy(rng.standard_normal(size.anchors)).float(),
    )


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def formula(given: Given, dtype: torch.dtype = torch.float64) -> Result:
    """Computes all logits at once in this dtype on the CPU, and the gradients by autograd."""
    anchors, positives, queue, temperature = (x.detach().cpu().to(dtype) for x in given[:4])
    for x in (anchors, positives, temperature):
        x.requires_grad_()
    logits = anchors @ queue.T / temperature
    logsumexp = torch.logsumexp(logits, 1)
    similarity = (anchors[:, None] * positives).sum(2)
    loss = torch.logaddexp(logsumexp[:, None] - similarity / temperature, torch.zeros((), dtype=dtype))
    incoming = given.d_loss.cpu().to(dtype), given.d_logsumexp.cpu().to(dtype)
    gradients = torch.autograd.grad((loss, logsumexp), (anchors, positives, temperature), incoming)
    return Result(*(x.detach() for x in (loss, similarity, logsumexp, logits.amax(1))), *gradients)


def forward_backward(
    given: Given, learned: Sequence[str] = LEARNABLE, contrast_of: Callable[..., QueueContrast] = queue_contrast
) -> dict[str, Tensor]:
    """Runs the operation and its gradient through autograd.

    An output whose incoming gradient is zero everywhere has no part in it, and a gradient that nobody wants is left
    out.
    """
    leaves = {name: getattr(given, name).detach().requires_grad_(name in learned) for name in LEARNABLE}
    result = contrast_of(leaves["anchors"], leaves["positives"], given.queue, leaves["temperature"])
    incoming = {"loss": given.d_loss, "logsumexp": given.d_logsumexp}
    used = [name for name, gradient in incoming.items() if gradient.any()]
    torch.autograd.backward([getattr(result, name) for name in used], [incoming[name] for name in used])
    gradients = {f"d_{name}": x.grad for name, x in leaves.items() if x.grad is not None}
    return {name: x.detach() for name, x in (result._asdict() | gradients).items()}


GRADIENT = {torch.float32: 5e-4, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""The share of a gradient that may be lost: weights and result, both rounded to the dtype, lose 2 x 2**-11 or
2 x 2**-8."""
LOGSUM = 1e-5
"""How far a log-sum-exp may be off beyond its logits."""
SMALLEST = 1e-37
"""The number at which float32 ends."""


def allowed(given: Given, true: Result) -> Result:
    """Computes how far each number may be from the truth.

    No error of plain torch in the same dtype comes on top: sums are float32 for any dtype.

    Logits are at most 1/T. Tensor cores add 16 dimensions at a time to a float32 and cut off up to its last place
    (2**-23) each time, or 8 and half a place; four roundings of the factors 1/T, log2(e) and ln(2) cost two places
    more. The log-sum may be off by 1e-5 beyond that. The loss loses what log-sum and similarity do, times its slope.

    Gradients are sums of vectors times weights, over T. What is lost is a share of every term, and so of the sum of the
    sizes of the terms: of the gradient itself it may be any share, since terms cancel. Nor can a gradient be finer than
    the smallest number of its dtype.
    """
    dtype = given.anchors.dtype
    anchors, positives, queue, temperature, d_loss, d_logsumexp = (x.detach().cpu().double() for x in given)
    places = 2.0**-23 * (-(-anchors.shape[1] // 16) + 2)
    of_logits = places / temperature
    slope = -torch.expm1(-true.loss)

    logits = anchors @ queue.T / temperature
    shares = torch.softmax(logits, 1)
    pull = d_loss.abs() * slope
    push = pull.sum(1) + d_logsumexp.abs()
    of_anchors = (
        push[:, None] * (shares @ queue.abs()) + torch.einsum("np,npd->nd", pull, positives.abs())
    ) / temperature
    of_positives = pull[:, :, None] * anchors.abs()[:, None] / temperature
    of_temperature = push @ (shares * logits.abs()).sum(1) + (pull * true.similarity.abs()).sum() / temperature
    finest = max(torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps, SMALLEST)
    return Result(
        loss=slope * (LOGSUM + 2 * of_logits) + SMALLEST,
        similarity=torch.full_like(true.similarity, places),
        logsumexp=(LOGSUM + of_logits).expand_as(true.logsumexp),
        max_negative_logit=of_logits.expand_as(true.max_negative_logit),
        d_anchors=GRADIENT[dtype] * of_anchors + finest,
        d_positives=GRADIENT[dtype] * of_positives + finest,
        d_temperature=GRADIENT[dtype] * of_temperature / temperature,
    )


def check(given: Given, learned: Sequence[str] = LEARNABLE) -> dict[str, Tensor]:
    """Asserts that everything that comes out is right; returns it."""
    true = formula(given)
    limits = allowed(given, true)._asdict()
    results = forward_backward(given, learned)
    assert results.keys() == {*Result._fields[:4], *(f"d_{name}" for name in learned)}
    for name, result in results.items():
        expected, limit = getattr(true, name), limits[name]
        assert result.device == given.anchors.device
        assert result.dtype == (given.anchors.dtype if name in ("d_anchors", "d_positives") else torch.float32)
        assert result.shape == expected.shape, name
        error = (result.cpu().double() - expected).abs()
        assert (error <= limit).all(), f"{name} is off by up to {error.max():.2e}, where {limit.max():.2e} is allowed"
    return results


def check_no_anchors(given: Given) -> None:
    anchors, positives = (x[:0].detach().requires_grad_() for x in given[:2])
    temperature = given.temperature.detach().requires_grad_()
    result = queue_contrast(anchors, positives, given.queue, temperature)
    (result.loss.sum() + result.logsumexp.sum()).backward()
    for x in result:
        assert x.shape == (0, given.positives.shape[1])[: x.ndim]
    for x in (anchors, positives):
        assert x.grad is not None
        assert x.grad.shape == x.shape
    assert temperature.grad == 0


def check_extremes(device: torch.device, side: int, temperature: float, dtype: torch.dtype) -> None:
    """All keys are the anchor (side 1) or its opposite (-1); one positive is the anchor, the other its opposite.

    e^(1/T) is beyond float32, and at T = 0.001 beyond float64: so the answers are worked out by hand.
    """
    anchors, keys = 5, 70
    axis = torch.eye(1, 33, dtype=dtype, device=device).expand(anchors, 33)
    x, p = axis.clone().requires_grad_(), torch.stack([axis, -axis], 1).requires_grad_()
    t = torch.tensor(temperature, device=device, requires_grad=True)
    result = queue_contrast(x, p, side * axis[:1].expand(keys, 33), t)
    result.loss.sum().backward()

    # The loss and the weight of a positive that is as near as the keys, nearer, or farther than they: by 2/T.
    even = math.log(keys + 1), keys / (keys + 1)
    nearer, farther = (0.0, 0.0), (2 / temperature + math.log(keys), 1.0)
    losses, weights = zip(*((even, farther) if side == 1 else (nearer, even)), strict=True)
    along = (weights[0] * (side - 1) + weights[1] * (side + 1)) / temperature
    expected = {
        "similarity": torch.tensor([1.0, -1.0]).expand(anchors, 2),
        "max_negative_logit": torch.full((anchors,), side / temperature),
        "logsumexp": torch.full((anchors,), side / temperature + math.log(keys)),
        "loss": torch.tensor(losses).expand(anchors, 2),
    }
    # A logit of 1/T is rounded by 6e-8 / T, and with it the logarithm of a weight.
    rounding = 5e-7 / temperature
    for name, value in expected.items():
        error = rounding if name != "similarity" else 1e-6
        torch.testing.assert_close(getattr(result, name).detach().cpu(), value, rtol=0, atol=error, msg=name)
    for gradient, value, size in (
        (x.grad, along * axis, 1 / temperature),
        (p.grad, -torch.tensor(weights, device=device)[:, None] * axis[:, None] / temperature, 1 / temperature),
        (t.grad, torch.tensor(-anchors * along / temperature, device=device), anchors / temperature**2),
    ):
        assert gradient is not None
        share = max(torch.finfo(dtype).eps, rounding)
        torch.testing.assert_close(gradient.float(), value.float(), rtol=0, atol=2 * size * share)
