"""A batch that is embedded in parts, against the same parts in one graph, and against the batch in one piece."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from cacl.clips import ClipBatch
from cacl.config import Config, override
from cacl.method import cacl as method
from cacl.method.cacl import CACL
from cacl.method.losses import contrast_loss, order_loss
from cacl.method.pairs import CROSS, Embedding
from cacl.models import recompute as recomputation
from cacl.models.recompute import recompute_in_parts
from tests.method.small_method import a_batch, tiny

pytestmark = pytest.mark.usefixtures("seeded")

CLIPS, PARTS = 7, 3
"""The parts are of 3, 2 and 2 clips."""


def in_one_graph(module: Callable[..., Any], parts: int, *inputs: Tensor) -> dict[str, dict[str, Tensor]]:
    """Embeds the parts, and keeps all of their activations."""
    outputs = [module(*(x.tensor_split(parts)[number] for x in inputs)) for number in range(parts)]
    return {
        loss: {name: torch.cat([output[loss][name] for output in outputs]) for name in heads}
        for loss, heads in outputs[0].items()
    }


def whole_loss(outputs: dict[str, dict[str, Tensor]], keys: dict[str, dict[str, Tensor]], order: Tensor) -> Tensor:
    """The losses of the method in float64, in which each clip meets all others."""
    embeddings = {Embedding(name, "query"): x for name, x in outputs["contrast"].items()}
    embeddings |= {Embedding(name, "key"): x for name, x in keys["contrast"].items()}
    queue = nn.functional.normalize(torch.randn(9, 8, generator=torch.Generator().manual_seed(3)).double(), dim=1)
    return contrast_loss(embeddings, queue, 0.07, CROSS, "both")[0] + order_loss(outputs["order"]["cnn"], order)[0]


def gradients(
    query: nn.Module, call: Callable[..., Any], parts: int, *, autocast: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the gradients of all parameters and the buffers, after a step in these parts."""
    query = copy.deepcopy(query)
    batch = a_batch_of(CLIPS)
    clips = batch.query.to(next(query.parameters()).dtype)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = call(query, parts, clips, batch.order)
    with torch.no_grad():
        keys = copy.deepcopy(query).eval()(batch.key.to(clips.dtype), batch.order)
    whole_loss(outputs, keys, batch.order).backward()
    return [p.grad for p in query.parameters() if p.grad is not None], list(query.buffers())


def a_batch_of(clips: int) -> ClipBatch:
    torch.manual_seed(4)
    return a_batch(clips)


def a_query(**settings: Any) -> nn.Module:
    config = override(tiny(embedder="tubelet", **settings), ["model.dropout=0.5"])
    return CACL(config).query


@pytest.mark.parametrize("order_head", ["concatenation", "difference"])
def test_gradients_are_those_of_all_parts_in_one_graph(order_head: str) -> None:
    """Batch statistics move once for each part, and the masks of dropout are the same in both passes."""
    query = a_query(order_head=order_head).double()
    (expected, buffers), (found, moved) = (gradients(query, call, PARTS) for call in (in_one_graph, recompute_in_parts))
    assert len(found) == len(expected) == len(list(query.parameters()))
    for x, y in zip((*found, *moved), (*expected, *buffers), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)
    (whole, _) = gradients(query, recompute_in_parts, 1)
    assert any((x - y).norm() > 1e-3 * y.norm() for x, y in zip(whole, expected, strict=True))  # other statistics


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_without_batch_statistics_gradients_are_those_of_the_undivided_batch(parts: int) -> None:
    query = a_query().double().eval()
    (expected, _), (found, _) = (gradients(query, recompute_in_parts, number) for number in (1, parts))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_gradients_under_autocast_are_those_of_all_parts_in_one_graph() -> None:
    """Except those of Conv3d, which differ from call to call on a CPU (docs/training.md, "Precision")."""
    query = a_query()
    names = [name for name, _ in query.named_parameters()]
    (expected, _), (found, _) = (
        gradients(query, call, PARTS, autocast=True) for call in (in_one_graph, recompute_in_parts)
    )
    compared = {name: (x, y) for name, x, y in zip(names, found, expected, strict=True) if "cnn.layers" not in name}
    assert len(compared) > 20
    for name, (x, y) in compared.items():
        torch.testing.assert_close(x, y, rtol=0, atol=1e-2 * y.abs().max().item(), msg=name)


def test_one_part_at_a_time_has_activations() -> None:
    """The second pass of a part begins when the backward pass of the one after it has ended."""
    module, events = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), []
    module.register_forward_hook(lambda *_: events.append("first pass"))
    module[0].register_forward_hook(lambda *_: events.append("layer"))
    module[0].register_full_backward_hook(lambda *_: events.append("gradient"))
    x = torch.randn(6, 4, requires_grad=True)
    output = recompute_in_parts(module, 3, x)
    assert events == ["layer", "first pass"] * 3
    events.clear()
    output.sum().backward()
    assert [event for event in events if event != "first pass"] == ["layer", "gradient"] * 3


# ------------------------------------------------------------------------------------------------------ the method


def accumulating(parts: int, groups: int = 1, **settings: Any) -> Config:
    divided = [f"train.gradient_accumulation={parts}", f"contrast.shuffle_bn_groups={groups}"]
    return override(tiny(**settings), ["train.batch_size=24", *divided])


def note_length(lengths: list[int], _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    lengths.append(len(inputs[0]))


@pytest.mark.parametrize("negatives", ["queue", "batch", "both"])
def test_the_method_embeds_queries_and_keys_in_parts(negatives: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses see the whole batch, and all they compute is what it is with the activations of all parts in memory."""
    model = CACL(accumulating(PARTS, negatives=negatives))
    lengths: dict[str, list[int]] = {"query": [], "key": []}
    key_transformer: Any = model.key.transformer
    for name, encoder in (("query", model.query), ("key", key_transformer)):
        encoder.register_forward_pre_hook(partial(note_length, lengths[name]))
    twin, batch = copy.deepcopy(model), a_batch(12)
    losses, keys = model(batch, step=1)
    assert lengths == {"query": [4, 4, 4], "key": [4, 4, 4]}
    losses.total.backward()
    assert lengths == {"query": [4, 4, 4] * 2, "key": [4, 4, 4]}

    monkeypatch.setattr(recomputation, "recompute", lambda module, *inputs: module(*inputs))
    expected, expected_keys = twin(batch, step=1)
    expected.total.backward()
    assert torch.equal(keys, expected_keys)
    assert losses.metrics.keys() == expected.metrics.keys()
    assert all(torch.equal(value, expected.metrics[name]) for name, value in losses.metrics.items())
    for (name, p), q in zip(model.query.named_parameters(), twin.query.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-6, msg=name)
    assert all(torch.equal(x, y) for x, y in zip(model.buffers(), twin.buffers(), strict=True))


@pytest.mark.parametrize(("parts", "groups"), [(2, 1), (2, 3), (4, 1)])
def test_keys_of_parts_are_normalised_as_those_of_as_many_groups(parts: int, groups: int) -> None:
    """Each part is divided as the share of a process is."""
    batch, model = a_batch(24), CACL(accumulating(parts, groups))
    grouped = copy.deepcopy(model)
    grouped.config = accumulating(1, parts * groups)
    assert model.min_clips_per_rank == grouped.min_clips_per_rank == 2 * parts * groups
    assert torch.equal(model(batch, step=2).keys, grouped(batch, step=2).keys)


def test_without_a_contrast_a_part_needs_two_clips() -> None:
    assert CACL(accumulating(3, groups=4, contrast_weight=0.0)).min_clips_per_rank == 6


def test_a_loss_of_another_package_gets_the_whole_batch() -> None:
    """Whatever the heads give is joined, and its gradient reaches them."""
    model, batch, seen = CACL(accumulating(2)), a_batch(6), []
    query: Any = model.query

    def variance(outputs: dict[str, Tensor], state: method.LossState) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append((len(outputs["cnn"]), len(state.batch), len(state.keys["cnn"])))
        return outputs["cnn"].var(0).sum(), {}

    model.losses = cast("Any", {"contrast": variance})
    model(batch, step=0).losses.total.backward()
    assert seen == [(6, 6, 6)]
    assert query.cnn_heads["contrast"].project.weight.grad.any()
