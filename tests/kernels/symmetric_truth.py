"""The symmetric contrast of two views in float64, as the formula is written.

It also says how far from the formula the operation may be, its kernels and its reference alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.kernels.symmetric import SymmetricContrast, symmetric_contrast

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LEARNABLE = ("first", "second", "temperature")


class Size(NamedTuple):
    """The sizes N and D, and the temperature T."""

    samples: int
    dim: int
    temperature: float


class Given(NamedTuple):
    first: Tensor
    second: Tensor
    temperature: Tensor
    d_loss: Tensor
    """The weights of the losses, float32 as is T."""


class Result(NamedTuple):
    loss: Tensor
    similarity: Tensor
    max_negative_logit: Tensor
    d_first: Tensor
    d_second: Tensor
    d_temperature: Tensor


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def random_inputs(size: Size, dtype: torch.dtype) -> Given:
    """Draws unit vectors and rounds them to the dtype.

    Both views are near their video, some less so, and every third video is near another: so positives win and lose.
    Some losses count against the others.
    """
    rng = np.random.default_rng((*size[:2], round(1000 * size.temperature)))
    videos = rng.standard_normal((size.samples, size.dim))
    videos[::3] += 1.5 * videos[rng.integers(0, size.samples, len(videos[::3]))]
    spread = np.linspace(0.1, 1.0, size.samples)[:, None]
    first, second = (videos + spread * rng.standard_normal(videos.shape) for _ in range(2))
    return Given(
        unit(torch.from_numpy(first)).to(dtype),
        unit(torch.from_numpy(second)).to(dtype),
        torch.tensor(size.temperature),
        torch.from_numpy(rng.standard_normal(size.samples)).float(),
    )


def formula(given: Given) -> Result:
    """Computes the cross-entropy of all similarities in both directions, and the gradients by autograd, in float64."""
    first, second, temperature = (x.detach().cpu().double().requires_grad_() for x in given[:3])
    logits = first @ second.T / temperature
    own = torch.arange(len(first))
    loss = (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")) / 2
    gradients = torch.autograd.grad(loss, (first, second, temperature), given.d_loss.cpu().double())
    others = logits.detach().fill_diagonal_(-math.inf)
    return Result(loss.detach(), (first * second).sum(1).detach(), others.amax(1), *gradients)


def forward_backward(
    given: Given,
    learned: Sequence[str] = LEARNABLE,
    contrast_of: Callable[..., SymmetricContrast] = symmetric_contrast,
) -> dict[str, Tensor]:
    """Runs the operation and its gradient through autograd. A gradient that nobody wants is left out."""
    leaves = {name: getattr(given, name).detach().requires_grad_(name in learned) for name in LEARNABLE}
    result = contrast_of(*leaves.values())
    result.loss.backward(given.d_loss)
    gradients = {f"d_{name}": x.grad for name, x in leaves.items() if x.grad is not None}
    return {name: x.detach() for name, x in (result._asdict() | gradients).items()}


def forward_backward_by_ranks(given: Given, counts: Sequence[int]) -> dict[str, Tensor]:
    """Runs the operation as processes with so many rows each would, one process after the other.

    What the others bring to a gathering is known from the round before. In the second round features are right, in the
    third all is.
    """
    first, second, d_loss = (getattr(given, name).split(list(counts)) for name in ("first", "second", "d_loss"))
    seen: list[list[Tensor]] = [[] for _ in counts]
    parts: list[dict[str, Tensor]] = []
    before = seen
    for _ in range(3):
        before, seen, parts = seen, [[] for _ in counts], []
        for rank, rank_offset in enumerate(accumulate(counts[:-1], initial=0)):

            def gather(x: Tensor, rank: int = rank, before: list = before, seen: list = seen) -> Tensor:
                number = len(seen[rank])
                seen[rank].append(x.detach().clone())
                unknown = [x.new_zeros(count, *x.shape[1:]) for count in counts]
                brought = [known[number] if known else zeros for known, zeros in zip(before, unknown, strict=True)]
                return torch.cat([*brought[:rank], x, *brought[rank + 1 :]])

            own = Given(first[rank], second[rank], given.temperature, d_loss[rank])
            parts.append(
                forward_backward(own, contrast_of=partial(symmetric_contrast, gather=gather, rank_offset=rank_offset))
            )
    for old, new in zip(before, seen, strict=True):
        assert len(new) == 6  # both views and both directions, the views once more in the backward pass
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True)), "a third round was not enough"
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "d_temperature"}
    return whole | {"d_temperature": torch.stack([part["d_temperature"] for part in parts]).sum()}


GRADIENT = {torch.float32: 5e-4, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""The share of a gradient that may be lost: weights and result, both rounded to the dtype, lose 2 x 2**-11 or
2 x 2**-8."""
LOGSUM = 1e-5
"""How far a log-sum-exp may be off beyond its logits."""
SMALLEST = 1e-35
"""The number at which float32 ends, where a few hundred of its last numbers are added."""
CANCELLED = 1e-14
"""What the truth itself loses: cross-entropy takes a logit from a log-sum, and its gradient a probability from 1."""


def of_logits(dim: int, temperature: Tensor) -> Tensor:
    """Computes how far logits may be off. They are at most 1/T.

    Tensor cores add 16 dimensions at a time to a float32 and cut off up to its last place (2**-23) each time, or 8 and
    half a place; four roundings of the factors 1/T, log2(e) and ln(2) cost two places more.
    """
    return 2.0**-23 * (-(-dim // 16) + 2) / temperature


def lost(size: Tensor, weights: Tensor, columns: Tensor, temperature: Tensor, dtype: torch.dtype) -> Tensor:
    """Computes how far sums of columns times weights over T may be off; `size` is the sum of the sizes of the terms.

    What is lost is a share of every term: of the sum itself it may be any share, since terms cancel. In float16 the two
    roundings use up all of it, so that what logits lose comes on top. And float16 ends: the largest weight is 2**14 in
    it, and 2**-25 is rounded to nothing.
    """
    share, ends = torch.tensor(GRADIENT[dtype]), 0.0
    if dtype == torch.float16 and len(weights):
        share, ends = share + 2 * of_logits(columns.shape[1], temperature), 2.0**-39 * weights.abs().max()
    return share * size + (ends + SMALLEST) * columns.abs().sum(0) / temperature


def allowed(given: Given) -> Result:
    """Computes how far each number may be from the truth.

    No error of plain torch in the same dtype comes on top: sums are float32 for any dtype.

    The log-sum may be off by 1e-5 beyond what its logits are. The loss loses what log-sum and similarity do, times its
    slope. A gradient cannot be finer than the smallest number of its dtype.
    """
    dtype = given.first.dtype
    first, second, temperature, d_loss = (x.detach().cpu().double() for x in given)
    places = of_logits(first.shape[1], temperature)
    logits = first @ second.T / temperature
    rows, columns = (torch.softmax(logits, way).fill_diagonal_(0) for way in (1, 0))
    slope = (rows.sum(1) + columns.sum(0)) / 2
    weights = (d_loss.abs()[:, None] * rows + d_loss.abs() * columns) / 2
    pull = d_loss.abs() * slope
    of_first = (weights @ second.abs() + pull[:, None] * second.abs()) / temperature
    of_second = (weights.T @ first.abs() + pull[:, None] * first.abs()) / temperature
    of_temperature = ((weights * logits.abs()).sum() + pull @ logits.diagonal().abs()) / temperature
    finest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps / 2
    cancelled = CANCELLED * d_loss.abs().sum() / temperature
    return Result(
        loss=slope * (LOGSUM + 2 * places) + CANCELLED / temperature,
        similarity=torch.full_like(slope, float(places * temperature)),
        max_negative_logit=places.expand_as(slope),
        d_first=lost(of_first, d_loss, second, temperature, dtype) + finest + cancelled,
        d_second=lost(of_second, d_loss, first, temperature, dtype) + finest + cancelled,
        d_temperature=GRADIENT[dtype] * of_temperature + cancelled / temperature + SMALLEST,
    )


def compare(given: Given, results: dict[str, Tensor]) -> None:
    """Asserts that all results there are are right."""
    true, limits = formula(given)._asdict(), allowed(given)._asdict()
    for name, result in results.items():
        expected, limit = true[name], limits[name]
        assert result.device == given.first.device
        assert result.dtype == (given.first.dtype if name in ("d_first", "d_second") else torch.float32)
        assert result.shape == expected.shape, name
        alone = expected == -math.inf  # the largest logit of no others
        assert torch.equal(result.cpu() == -math.inf, alone), name
        error = (result.cpu().double() - expected).masked_fill(alone, 0).abs()
        assert (error <= limit).all(), f"{name} is off by up to {error.max():.2e}, where {limit.max():.2e} is allowed"


def check(given: Given, learned: Sequence[str] = LEARNABLE) -> dict[str, Tensor]:
    """Asserts that everything that comes out is right; returns it."""
    results = forward_backward(given, learned)
    assert results.keys() == {*Result._fields[:3], *(f"d_{name}" for name in learned)}
    compare(given, results)
    return results


def check_one_sample(given: Given) -> None:
    """Asserts what a sample gets that nothing is held against."""
    results = check(given)
    assert results["loss"].tolist() == [0]
    assert results["max_negative_logit"].tolist() == [-math.inf]
    for name in LEARNABLE:
        assert not results[f"d_{name}"].any()


def check_no_samples(given: Given) -> None:
    results = forward_backward(Given(given.first[:0], given.second[:0], given.temperature, given.d_loss[:0]))
    assert all(results[name].shape == (0,) for name in Result._fields[:3])
    assert results["d_first"].shape == results["d_second"].shape == (0, given.first.shape[1])
    assert results["d_temperature"] == 0


def check_extremes(device: torch.device, kind: str, temperature: float, dtype: torch.dtype) -> None:
    """e^(1/T) is beyond float32, and at T = 0.001 beyond float64: so the answers are worked out by hand."""
    samples = 70
    axes, t = torch.eye(samples, 80), 1 / temperature
    same = axes[:1].expand(samples, -1)
    # First and second views, the loss of each sample, the largest other logit, and the gradient of the first views.
    first, second, loss, max_negative_logit, d_first = {
        "each its own": (axes, axes, 0.0, 0.0, 0 * axes),
        "each the next": (axes, axes.roll(1, 0), t, t, (axes - axes.roll(1, 0)) * t),
        "all alike": (same, same, math.log(samples), t, 0 * axes),
        "all opposite": (same, -same, math.log(samples), -t, 0 * axes),
    }[kind]
    ones = torch.ones(samples)
    given = Given(*(x.to(device) for x in (first.to(dtype), second.to(dtype), torch.tensor(temperature), ones)))
    results = forward_backward(given)
    expected = {
        "loss": loss * ones,
        "max_negative_logit": max_negative_logit * ones,
        "d_first": d_first,
        "d_second": -d_first,
        "d_temperature": -(d_first * first).sum() * t,
    }
    # A logit of 1/T is rounded by 6e-8 / T, and with it the logarithm of a weight; each of two weights of a gradient by
    # half a place of the dtype.
    rounding = 5e-7 * t
    share = max(torch.finfo(dtype).eps, rounding) * t
    limits = {"loss": rounding, "max_negative_logit": rounding, "d_temperature": samples * share * t}
    for name, value in expected.items():
        torch.testing.assert_close(
            results[name].cpu().float(), value, rtol=0, atol=limits.get(name, share), msg=lambda m, n=name: f"{n}: {m}"
        )


def padded(x: Tensor) -> Tensor:
    """Copies rows amid others."""
    room = x.new_full((len(x) + 12, x.shape[1]), math.nan)
    room[5:-7] = x
    return room[5:-7]


def spaced(x: Tensor) -> Tensor:
    """Copies to every second row and every third element."""
    room = x.new_full((2 * len(x), 3 * x.shape[1]), math.nan)
    room[::2, 1::3] = x
    return room[::2, 1::3]


def transposed(x: Tensor) -> Tensor:
    return padded(x.T.contiguous()).T


# --- The two operations, each on its own


class Weighed(NamedTuple):
    """The inputs of both operations: `row_stats` and `column_stats` hold log-sum-exps beside weights."""

    rows: Tensor
    columns: Tensor
    temperature: Tensor
    rank_offset: int
    row_stats: Tensor
    column_stats: Tensor


def weighed(rows: Tensor, columns: Tensor, temperature: float, rank_offset: int, u: Tensor, v: Tensor) -> Weighed:
    """Computes the log-sum-exps that belong to rows and columns, where the columns have no other rows than these."""
    t = torch.tensor(temperature)
    logits = _others(rows, columns, t, rank_offset)
    log_sums = (torch.logsumexp(logits, way).clamp(min=-1e30).float() for way in (1, 0))
    row_stats, column_stats = (torch.stack([a, w], 1) for a, w in zip(log_sums, (u, v), strict=True))
    return Weighed(rows, columns, t, rank_offset, row_stats, column_stats)


def _others(rows: Tensor, columns: Tensor, temperature: Tensor, rank_offset: int) -> Tensor:
    logits = rows.double() @ columns.double().T / temperature.double()
    logits.diagonal(rank_offset).fill_(-math.inf)
    return logits


def check_operations(given: Weighed, device: torch.device) -> Tensor:
    """Asserts that both are right; returns the gradient."""
    inputs = [x.to(device) if isinstance(x, Tensor) else x for x in given]
    logits, t = _others(*given[:4]), given.temperature.double()
    places = of_logits(given.rows.shape[1], t)
    for result, expected, limit in zip(
        torch.ops.cacl.batch_logsumexp(*inputs[:4]),
        (torch.logsumexp(logits, 1), logits.amax(1)),
        (LOGSUM + places, places),
        strict=True,
    ):
        assert result.dtype == torch.float32
        assert ((result.cpu() - expected).abs() <= limit).all()

    (a, u), (b, v) = (x.double().unbind(1) for x in (given.row_stats, given.column_stats))
    by_rows, by_columns = u[:, None] * (logits - a[:, None]).exp(), v * (logits - b).exp()
    columns = given.columns.double()
    gradient = torch.ops.cacl.batch_gradient(*inputs)
    assert gradient.dtype == torch.float32
    size = (by_rows.abs() + by_columns.abs()) @ columns.abs() / t
    limit = lost(size, torch.cat([u, v]), columns, t, given.rows.dtype)
    error = (gradient.cpu() - (by_rows + by_columns) @ columns / t).abs()
    assert (error <= limit).all(), f"off by up to {(error / limit).max():.1f} times what is allowed"
    return gradient
