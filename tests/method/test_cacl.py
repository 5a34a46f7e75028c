"""The step that joins encoders, queue and momentum copies, against itself done the long way."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.method.cacl import CACL
from cacl.method.dual_encoder import shuffle_frames
from cacl.method.losses import contrast_loss, order_loss, reversed_contrast_loss
from cacl.method.pairs import CROSS, Embedding
from cacl.registry import PAIRS
from tests.method.small_method import DIM, FRAMES, a_batch, parameters, tiny

pytestmark = pytest.mark.usefixtures("seeded")


def test_the_key_encoders_have_no_order_head() -> None:
    model = CACL(tiny())
    assert set(model.query.cnn_heads) == {"contrast", "order"}
    assert set(model.key.cnn_heads) == {"contrast"}
    names = {name for name, _ in model.query.named_parameters() if not name.startswith("cnn_heads.order.")}
    assert {name for name, _ in model.key.named_parameters()} == names


# --------------------------------------------------------------------------------------------------------- loss

LOSSES = [(pairs, order) for pairs in ("cross", "official", "within", "cnn", "transformer") for order in (0.0, 0.5)]
LOSSES += [("none", 0.5)]
ENCODERS = ("cnn", "transformer")
NEGATIVES = ("queue", "batch", "both")


def with_losses(pairs: str, order_weight: float, **contrast: Any) -> Config:
    """The method with these pairs; "none" leaves the contrast out."""
    if pairs == "none":
        return tiny(order_weight=order_weight, contrast_weight=0.0, **contrast)
    return tiny(order_weight=order_weight, contrast_weight=0.7, pairs=pairs, **contrast)


def assert_same_rows(actual: Tensor, expected: Tensor) -> None:
    """Asserts that the rows are the same, in any order."""
    assert actual.shape == expected.shape
    distance, nearest = torch.cdist(expected, actual).min(1)
    assert sorted(nearest.tolist()) == list(range(len(actual)))
    torch.testing.assert_close(distance, torch.zeros(len(actual)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("pairs", "order_weight"), LOSSES)
def test_loss_reaches_all_of_the_query_and_nothing_else(pairs: str, order_weight: float, negatives: str) -> None:
    """A trained parameter without a gradient would stop data-parallel training."""
    model = CACL(with_losses(pairs, order_weight, negatives=negatives))
    key, queue = parameters(model.key), copy.deepcopy(model.queue.state_dict())
    parts, keys = model(a_batch(), step=0)
    assert parts.total.isfinite()
    assert all(value.isfinite() and not value.requires_grad for value in parts.metrics.values())
    parts.total.backward()

    for name, p in model.query.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name
    assert all(p.grad is None for p in model.key.parameters())
    assert not keys.requires_grad
    assert not model.queue.keys.requires_grad
    assert all(torch.equal(p, key[name]) for name, p in model.key.named_parameters())
    assert all(torch.equal(value, queue[name]) for name, value in model.queue.state_dict().items())


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("pairs", "order_weight"), LOSSES)
def test_loss_is_made_of_its_parts(pairs: str, order_weight: float, negatives: str) -> None:
    """Queries see the first view, keys the second, both with the same order."""
    model, batch = CACL(with_losses(pairs, order_weight, negatives=negatives)), a_batch()
    query, key = copy.deepcopy(model.query), copy.deepcopy(model.key)
    parts, keys = model(batch, step=0)

    q, k = query(batch.views[0].float(), batch.order), key(batch.views[1].float(), batch.order)
    total, metrics = torch.zeros(()), {}
    if pairs != "none":
        q_contrast, k_contrast = q["contrast"], k["contrast"]
        embeddings = {Embedding(name, "query"): q_contrast[name] for name in ENCODERS if name in q_contrast}
        embeddings |= {Embedding(name, "key"): k_contrast[name] for name in ENCODERS if name in k_contrast}
        contrast, metrics = contrast_loss(embeddings, model.queue.keys, 0.07, PAIRS.load(pairs), negatives)
        total, metrics["contrast"] = total + 0.7 * contrast, contrast
        assert_same_rows(keys, torch.cat([k_contrast[name] for name in ENCODERS if name in k_contrast]))
    if order_weight:
        order, accuracy = order_loss(q["order"]["cnn"], batch.order)
        total, metrics = total + order_weight * order, metrics | accuracy | {"order": order}
    assert parts.metrics.keys() == metrics.keys()
    torch.testing.assert_close(parts.total, total)
    for name, value in metrics.items():
        torch.testing.assert_close(parts.metrics[name], value, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("first_input", ["clip", "shuffled"])
@pytest.mark.parametrize("groups", [1, 2])
def test_backward_clips_are_negatives_beside_the_same_shuffled_copy(groups: int, first_input: str) -> None:
    """They are normalised in the same company as the keys, do not enter the queue, and are weighted. The CNN encodes
    the copy once for both."""
    config = tiny(reversed_weight=0.7, cross_weight=0.3, shuffle_bn_groups=groups, key_first_input=first_input)
    model, batch = CACL(config), a_batch()
    query, key = copy.deepcopy(model.query), copy.deepcopy(model.key)
    seen, seen_by_cnn = inputs_of(model.key.transformer), inputs_of(model.key.cnn)
    parts, all_keys = model(batch, step=3)
    seen = [first for first, _ in seen]
    assert [len(clips) for clips in seen] == [6 // groups] * 2 * groups
    assert [len(clips) for (clips,) in seen_by_cnn] == [6 // groups] * 3 * groups

    clips, order = batch.key.float(), batch.order
    shuffled = shuffle_frames(clips, order)
    # Which clips were together; the shuffled copies come first if the configuration says so.
    first = clips if first_input == "clip" else shuffled
    companies = [[int((first == clip).flatten(1).all(1).nonzero()) for clip in forward] for forward in seen[::2]]
    assert sorted(itertools.chain(*companies)) == list(range(6))

    def keys_of(true_clips: Tensor) -> dict[str, Tensor]:
        rows = {name: torch.full((6, DIM), math.nan) for name in ENCODERS}
        for company in companies:
            for name, x in _embed_both(key, true_clips[company], shuffled[company], first_input).items():
                rows[name][company] = x
        return rows

    with torch.no_grad():
        forward, backward = keys_of(clips), keys_of(clips.flip(2))
        q = query(batch.query.float(), order)["contrast"]
    assert_same_rows(all_keys, torch.cat([forward["cnn"], forward["transformer"]]))
    embeddings = {Embedding(name, "query"): q[name] for name in ENCODERS}
    embeddings |= {Embedding(name, "key"): forward[name] for name in ENCODERS}
    contrast, _ = contrast_loss(embeddings, model.queue.keys, 0.07, CROSS, cross_weight=0.3)
    against_backward, metrics = reversed_contrast_loss(embeddings, backward, 0.07, CROSS, cross_weight=0.3)
    torch.testing.assert_close(parts.metrics["contrast"], contrast + 0.7 * against_backward)
    for name, value in metrics.items():
        torch.testing.assert_close(parts.metrics[name], value, msg=lambda m, name=name: f"{name}: {m}")


def inputs_of(module: Any) -> list[tuple[Tensor, ...]]:
    """Returns a list to which each call of a module adds its inputs."""
    seen: list[tuple[Tensor, ...]] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    return seen


def _embed_both(key: Any, true_clips: Tensor, shuffled: Tensor, first_input: str) -> dict[str, Tensor]:
    """Embeds clips and other shuffled copies of them, without an order that makes one of the other."""
    first, second = (true_clips, shuffled) if first_input == "clip" else (shuffled, true_clips)
    cnn = key.cnn_heads["contrast"](torch.cat([key.cnn(first), key.cnn(second)], 1))
    tokens = key.transformer.embed(first), key.transformer.embed(second)
    return {"cnn": cnn, "transformer": key.transformer_heads["contrast"](key.transformer.attend(*tokens))}


def test_without_a_weight_no_backward_clip_is_encoded() -> None:
    model = CACL(tiny())
    by_cnn, by_transformer = inputs_of(model.key.cnn), inputs_of(model.key.transformer)
    parts, _ = model(a_batch(), step=0)
    assert (len(by_cnn), len(by_transformer)) == (2, 1)
    assert not any("reversed" in name for name in parts.metrics)


def test_the_direction_of_time_is_learnt() -> None:
    """The clips of a batch become brighter or darker, and played backwards they do the other. Chance is log 2."""
    model, batch = CACL(tiny(pairs="cnn", reversed_weight=1.0, order_weight=0.0)), a_batch()
    ramp = torch.linspace(0.2, 1, FRAMES).view(-1, 1, 1)
    ramps = torch.stack([ramp, ramp.flip(0)] * 3)[:, None]
    batch = dataclasses.replace(batch, views=tuple((view * ramps).half() for view in batch.views))
    optimizer = torch.optim.Adam(model.query.parameters(), lr=0.01)
    seen = []
    for step in range(40):
        parts, keys = model(batch, step)
        seen.append(parts.metrics["contrast/reversed"].item())
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
        model.update(keys)
    assert seen[0] > 0.3
    assert sum(seen[-5:]) / 5 < 0.1


@pytest.mark.parametrize("negatives", ["batch", "both"])
def test_videos_of_a_batch_are_learnt_by_heart(negatives: str) -> None:
    """Each video has a colour. Chance is log(6) = 1.79."""
    model, batch = CACL(tiny(pairs="cnn", negatives=negatives, order_weight=0.0)), a_batch()
    colours = torch.rand(6, 3, 1, 1, 1).half()
    batch = dataclasses.replace(batch, views=tuple(view * colours for view in batch.views))
    optimizer = torch.optim.Adam(model.query.parameters(), lr=0.01)
    seen = []
    for step in range(40):
        parts, keys = model(batch, step)
        seen.append(parts.metrics["contrast" if negatives == "batch" else "contrast/batch"].item())
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
        model.update(keys)
    assert seen[0] > math.log(6)
    assert sum(seen[-5:]) / 5 < 0.2


@pytest.mark.parametrize(
    ("pairs", "rows"), [("cross", 12), ("official", 12), ("within", 12), ("cnn", 6), ("transformer", 6), ("none", 0)]
)
def test_all_keys_of_a_batch_enter_the_queue(pairs: str, rows: int) -> None:
    model = CACL(with_losses(pairs, float(pairs == "none")))
    old = model.queue.keys.clone()
    _, keys = model(a_batch(), step=0)
    assert keys.shape == (rows, DIM)
    model.update(keys)
    assert torch.equal(model.queue.keys, torch.cat([keys, old[rows:]]))
    _, keys = model(a_batch(), step=1)
    model.update(keys)
    assert model.queue.pointer.item() == 2 * rows % 13
    torch.testing.assert_close(model.queue.keys.norm(dim=1), torch.ones(13))


@pytest.mark.parametrize("embedder", ["light", "tubelet", "test_resnet"])
def test_update_moves_the_keys_by_the_formula(embedder: str) -> None:
    model = CACL(tiny(embedder=embedder, momentum=0.8))
    expected = {name: p.double() for name, p in parameters(model.key).items()}
    frozen = {name for name, p in model.query.named_parameters() if not p.requires_grad}
    assert bool(frozen) == (embedder == "test_resnet")
    for _ in range(3):
        with torch.no_grad():
            for p in model.query.parameters():
                if p.requires_grad:
                    p += torch.randn_like(p)  # in place of an optimiser
        query = {name: p.double() for name, p in parameters(model.query).items()}
        model.update(model.queue.keys[:0])
        for name in expected.keys() - frozen:
            expected[name] = 0.8 * expected[name] + 0.2 * query[name]
        assert all(torch.equal(p, query[name].float()) for name, p in model.query.named_parameters())
    for name, p in model.key.named_parameters():
        torch.testing.assert_close(p.double(), expected[name], rtol=1e-6, atol=1e-6)
        assert p.requires_grad is False


def test_the_method_goes_on_from_its_state() -> None:
    old, new, batch = CACL(tiny()), CACL(tiny()), a_batch()
    old.update(old(batch, step=0)[1])
    new.load_state_dict(old.state_dict())
    (one, one_keys), (two, two_keys) = (model(batch, step=1) for model in (old, new))
    assert torch.equal(one.total, two.total)
    assert torch.equal(one_keys, two_keys)


# ------------------------------------------------------------------------------------------- shuffled batch norm


def groups_seen(model: CACL, batch: ClipBatch, step: int) -> tuple[list[list[int]], dict[str, Tensor], Tensor]:
    """Returns which clips of the batch the key encoders got together, and the metrics and keys of that step."""
    seen = inputs_of(model.key.transformer)
    parts, keys = model(batch, step)
    groups = []
    for clips, order in seen:
        same = (clips[:, None] == batch.key.float()[None]).flatten(2).all(2)
        groups.append([int(row.nonzero().item()) for row in same])
        assert torch.equal(order, batch.order[groups[-1]])
    return groups, parts.metrics, keys


@pytest.mark.parametrize("groups", [2, 3])
def test_keys_are_normalised_in_groups_and_come_back_in_order(groups: int) -> None:
    model, batch = CACL(tiny(shuffle_bn_groups=groups)), a_batch()
    query, key = copy.deepcopy(model.query), copy.deepcopy(model.key)
    assert key.training
    seen, metrics, keys = groups_seen(model, batch, step=3)
    assert [len(group) for group in seen] == [6 // groups] * groups
    assert sorted(itertools.chain(*seen)) == list(range(6))

    by_hand = {name: torch.full((6, DIM), math.nan) for name in ENCODERS}
    with torch.no_grad():
        for group in seen:
            for name, rows in key(batch.key[group].float(), batch.order[group])["contrast"].items():
                by_hand[name][group] = rows
        q, together = (f(x.float(), batch.order)["contrast"] for f, x in ((query, batch.query), (key, batch.key)))
    assert_same_rows(keys, torch.cat([by_hand["cnn"], by_hand["transformer"]]))
    assert (by_hand["cnn"] - together["cnn"]).abs().max() > 0.01  # the company matters
    embeddings = {Embedding(name, "query"): q[name] for name in ENCODERS}
    embeddings |= {Embedding(name, "key"): by_hand[name] for name in ENCODERS}
    _, expected = contrast_loss(embeddings, model.queue.keys, 0.07, CROSS)
    assert len(expected) == 8
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("clips", "groups", "sizes"), [(7, 3, [3, 2, 2]), (6, 3, [2, 2, 2]), (5, 2, [3, 2])])
def test_no_group_of_a_short_batch_has_a_single_clip(clips: int, groups: int, sizes: list[int]) -> None:
    model, batch = CACL(tiny(shuffle_bn_groups=groups)), a_batch(clips)
    assert clips >= model.min_clips_per_rank == 2 * groups
    seen, _, keys = groups_seen(model, batch, step=3)
    assert [len(group) for group in seen] == sizes
    assert sorted(itertools.chain(*seen)) == list(range(clips))
    assert len(keys) == 2 * clips


def test_the_step_decides_the_groups() -> None:
    model, batch = CACL(tiny(shuffle_bn_groups=2)), a_batch()
    first, again, *others = (groups_seen(model, batch, step)[0] for step in (3, 3, 4, 5, 6))
    assert first == again
    assert any(other != first for other in others)


def test_one_group_is_not_permuted() -> None:
    model, batch = CACL(tiny()), a_batch()
    assert groups_seen(model, batch, step=3)[0] == [[0, 1, 2, 3, 4, 5]]
