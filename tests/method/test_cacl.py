"""The queue, the momentum copies and the step that joins them, against themselves done the long way."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cacl.clips import ClipBatch, ViewPlan
from cacl.config import Config, TransformerConfig, from_dict
from cacl.loaders.backends.reference import make_view
from cacl.loaders.sampling.augmentation import color_matrix
from cacl.method.cacl import CACL
from cacl.method.dual_encoder import DualEncoder, shuffle_frames
from cacl.method.ema import ema_copy, ema_update
from cacl.method.key_queue import KeyQueue
from cacl.method.losses import contrast_loss, order_loss
from cacl.models.video_transformer import VideoTransformer

FRAMES, SIZE, DIM = 4, 16, 8


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def tiny(*, order_weight: float = 1.0, embedder: str = "light", **contrast: Any) -> Config:
    return from_dict(
        {
            "clip": {"frames": FRAMES, "size": SIZE},
            "model": {
                "cnn": "r3d10",
                "width": 1 / 16,
                "embedding_dim": DIM,
                "dropout": 0.0,
                "transformer": {"embedder": embedder, "width": 16, "depth": 1, "heads": 2},
            },
            "contrast": {"queue_size": 13, "momentum": 0.9, **contrast},
            "order": {"weight": order_weight},
            "train": {"batch_size": 6},
        }
    )


def a_batch(size: int = 6) -> ClipBatch:
    order = torch.stack([torch.randperm(FRAMES) for _ in range(size)]).byte()
    order[0] = torch.arange(FRAMES)
    number = torch.arange(size)
    views = tuple(torch.rand(2, size, 3, FRAMES, SIZE, SIZE).half())
    return ClipBatch(views=views, order=order, video=number, index=number)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


# ------------------------------------------------------------------------------------------------------- queue


@pytest.mark.parametrize("size", [1, 2, 5, 7, 64])
def test_queue_is_a_ring(size: int) -> None:
    """Against a list in which one key after the other is put down."""
    queue = KeyQueue(size, 3)
    model, pointer, written = queue.keys.tolist(), 0, 0
    counts = [0, 1, size, size - 1, size + 1, 2 * size, 3 * size + 1, 2 * size - 1]
    counts += torch.randint(0, 2 * size + 2, (50,)).tolist()
    for count in counts:
        keys = F.normalize(torch.randn(count, 3), dim=1)
        queue.enqueue(keys)
        for key in keys.tolist():
            model[pointer], pointer = key, (pointer + 1) % size
        written += count
        assert queue.keys.tolist() == model
        assert queue.pointer.item() == pointer == written % size


def test_queue_starts_with_different_unit_vectors() -> None:
    queue = KeyQueue(1000, 16)
    assert queue.keys.shape == (1000, 16)
    assert queue.keys.dtype == torch.float32
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(1000), rtol=0, atol=1e-6)
    assert len(queue.keys.unique(dim=0)) == 1000
    # a sum of uniform directions has a mean square length of 1000
    assert queue.keys.sum(0).square().sum() < 1000 * (1 + 4 * math.sqrt(2 / 16))
    assert (queue.pointer.item(), queue.pointer.dtype, queue.pointer.shape) == (0, torch.int64, ())


def test_queue_is_no_parameter_and_takes_no_graph() -> None:
    queue = KeyQueue(5, 3)
    assert list(queue.parameters()) == []
    queue.enqueue(torch.randn(3, 3, requires_grad=True) * 2)
    assert not queue.keys.requires_grad


def test_queue_goes_on_from_its_state() -> None:
    old, new = KeyQueue(7, 3), KeyQueue(7, 3)
    old.enqueue(torch.randn(4, 3))
    assert set(old.state_dict()) == {"keys", "pointer"}
    new.load_state_dict(old.state_dict())
    more = torch.randn(5, 3)
    old.enqueue(more)
    assert not torch.equal(new.keys, old.keys)  # loading copied
    new.enqueue(more)
    assert torch.equal(new.keys, old.keys)
    assert torch.equal(new.pointer, old.pointer)


def test_queue_keeps_its_precision() -> None:
    queue, keys = KeyQueue(4, 3), torch.randn(6, 3).bfloat16()
    queue.enqueue(keys)
    assert queue.keys.dtype == torch.float32
    assert torch.equal(queue.keys, keys[[4, 5, 2, 3]].float())  # key i lies at i modulo 4


# ---------------------------------------------------------------------------------------------------- momentum


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_ema_update_is_the_formula(momentum: float) -> None:
    shapes = [(3,), (2, 5), ()]
    targets = [torch.randn(shape) for shape in shapes]
    expected = [target.numpy().astype(np.float64) for target in targets]
    places = [target.data_ptr() for target in targets]
    for _ in range(20):
        sources = [torch.randn(shape, requires_grad=True) for shape in shapes]
        ema_update(targets, sources, momentum)
        values = [source.detach().numpy().astype(np.float64) for source in sources]
        expected = [momentum * t + (1 - momentum) * s for t, s in zip(expected, values, strict=True)]
    for target, value in zip(targets, expected, strict=True):
        np.testing.assert_allclose(target.numpy(), value, rtol=0, atol=20 * 2**-23)  # 20 roundings of values near 1
    assert [target.data_ptr() for target in targets] == places  # in place
    assert not any(target.requires_grad for target in targets)


def test_ema_copy_shares_what_is_frozen_and_nothing_else() -> None:
    source = VideoTransformer(TransformerConfig(embedder="test_resnet", width=16, depth=1, heads=2), FRAMES)
    target = ema_copy(source)
    theirs = dict(target.named_parameters())
    trained = {name for name, p in source.named_parameters() if p.requires_grad}
    assert 0 < len(trained) < len(theirs)
    for name, p in source.named_parameters():
        assert (theirs[name] is p) == (name not in trained), name
        assert torch.equal(theirs[name], p), name
        assert not theirs[name].requires_grad, name
    assert {name for name, p in source.named_parameters() if p.requires_grad} == trained
    buffers = dict(source.named_buffers())
    assert all(buffer.data_ptr() != buffers[name].data_ptr() for name, buffer in target.named_buffers())


def test_the_key_encoders_have_no_order_head() -> None:
    model = CACL(tiny())
    assert model.query.order_head is not None
    assert model.key.order_head is None
    names = {name for name, _ in model.query.named_parameters() if not name.startswith("order_head.")}
    assert {name for name, _ in model.key.named_parameters()} == names


# ------------------------------------------------------------------------------------------ the exact savings


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_shuffle_frames_against_a_loop(dtype: torch.dtype) -> None:
    clips = torch.rand(3, 3, 5, 6, 7, requires_grad=True)
    order = torch.stack([torch.randperm(5) for _ in range(3)])
    shuffled = shuffle_frames(clips, order.to(dtype))
    assert shuffled.shape == clips.shape
    for b in range(3):
        for t in range(5):
            assert torch.equal(shuffled[b, :, t], clips[b, :, int(order[b, t])])
    assert torch.equal(shuffle_frames(clips, torch.arange(5).expand(3, 5)), clips)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("side", "size"), [(32, 16), (16, 16), (18, 33)])
def test_shuffling_a_view_equals_augmenting_the_shuffled_clip(side: int, size: int, flip: bool) -> None:
    """One augmentation for all frames: T frames are augmented per view, not 2T."""
    frames = torch.randint(0, 256, (16, 3, 40, 60), dtype=torch.uint8)
    color = color_matrix(brightness=1.3, contrast=0.7, saturation=1.2, hue=0.08)
    view = ViewPlan(top=4, left=10, side=side, flip=flip, color=color)
    order = torch.randperm(16)
    long_way = make_view(frames[order], view, size)
    assert torch.equal(shuffle_frames(make_view(frames, view, size)[None], order[None])[0], long_way)


def test_encoders_equal_the_long_way() -> None:
    """The shuffled clip made by a loop, the CNN on one after the other, the tokens of all 2T frames."""
    encoders, batch = DualEncoder(tiny()), a_batch()
    other: Any = copy.deepcopy(encoders)  # its parts are None in other configurations
    clips = batch.query.float()
    shuffled = torch.stack([clip[:, order.long()] for clip, order in zip(clips, batch.order, strict=True)])
    features = torch.cat([other.cnn(clips), other.cnn(shuffled)], 1)
    tokens = other.transformer.attend(other.transformer.embed(clips), other.transformer.embed(shuffled))
    out = encoders(clips, batch.order)
    assert set(out) == {"f", "t", "order"}
    torch.testing.assert_close(out["f"], other.cnn_head(features))
    torch.testing.assert_close(out["order"], other.order_head(features))
    torch.testing.assert_close(out["t"], other.transformer_head(tokens))


# --------------------------------------------------------------------------------------------------------- loss

LOSSES = [(pairs, weight) for pairs in ("cross", "official", "within", "cnn") for weight in (0.0, 0.5)]
LOSSES += [("transformer", 0.0), ("none", 0.5)]
NEGATIVES = ("queue", "batch", "both")


def assert_same_rows(actual: Tensor, expected: Tensor) -> None:
    """In any order."""
    assert actual.shape == expected.shape
    distance, nearest = torch.cdist(expected, actual).min(1)
    assert sorted(nearest.tolist()) == list(range(len(actual)))
    torch.testing.assert_close(distance, torch.zeros(len(actual)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize(("pairs", "order_weight"), LOSSES)
def test_loss_reaches_all_of_the_query_and_nothing_else(pairs: str, order_weight: float, negatives: str) -> None:
    """A trained parameter without a gradient would stop data parallel training."""
    model = CACL(tiny(pairs=pairs, order_weight=order_weight, negatives=negatives))
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
    config = tiny(pairs=pairs, order_weight=order_weight, weight=0.7, negatives=negatives)
    model, batch = CACL(config), a_batch()
    query, key = copy.deepcopy(model.query), copy.deepcopy(model.key)
    parts, keys = model(batch, step=0)

    q, k = query(batch.views[0].float(), batch.order), key(batch.views[1].float(), batch.order)
    total, metrics = torch.zeros(()), {}
    if pairs != "none":
        embeddings = {f"{n}_q": q[n] for n in "ft" if n in q} | {f"{n}_k": k[n] for n in "ft" if n in k}
        contrast, metrics = contrast_loss(embeddings, model.queue.keys, 0.07, pairs, negatives)
        total, metrics["contrast"] = total + 0.7 * contrast, contrast
        assert_same_rows(keys, torch.cat([k[n] for n in "ft" if n in k]))
    if order_weight:
        order, accuracy = order_loss(q["order"], batch.order)
        total, metrics = total + order_weight * order, metrics | accuracy | {"order": order}
    assert parts.metrics.keys() == metrics.keys()
    torch.testing.assert_close(parts.total, total)
    for name, value in metrics.items():
        torch.testing.assert_close(parts.metrics[name], value, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("negatives", ["batch", "both"])
def test_videos_of_a_batch_are_learnt_by_heart(negatives: str) -> None:
    """Each has a colour. Chance is the logarithm of 6, 1.79."""
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
    model = CACL(tiny(pairs=pairs, order_weight=float(pairs == "none")))
    old = model.queue.keys.clone()
    _, keys = model(a_batch(), step=0)
    assert keys.shape == (rows, DIM)
    model.update(keys)
    assert torch.equal(model.queue.keys, torch.cat([keys, old[rows:]]))
    _, keys = model(a_batch(), step=1)
    model.update(keys)
    assert model.queue.pointer.item() == 2 * rows % 13
    torch.testing.assert_close(model.queue.keys.norm(dim=1), torch.ones(13))


@pytest.mark.parametrize("embedder", ["light", "test_resnet"])
def test_update_moves_the_keys_by_the_formula(embedder: str) -> None:
    model = CACL(tiny(embedder=embedder, momentum=0.8))
    expected = {name: p.double() for name, p in parameters(model.key).items()}
    frozen = {name for name, p in model.query.named_parameters() if not p.requires_grad}
    assert bool(frozen) == (embedder != "light")
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
    """Which clips of the batch the key encoders got together, and the metrics and keys of that step."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = model.key.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    parts, keys = model(batch, step)
    handle.remove()
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

    by_hand = {"f": torch.full((6, DIM), math.nan), "t": torch.full((6, DIM), math.nan)}
    with torch.no_grad():
        for group in seen:
            for name, rows in key(batch.key[group].float(), batch.order[group]).items():
                by_hand[name][group] = rows
        q, together = query(batch.query.float(), batch.order), key(batch.key.float(), batch.order)
    assert_same_rows(keys, torch.cat([by_hand["f"], by_hand["t"]]))
    assert (by_hand["f"] - together["f"]).abs().max() > 0.01  # the company matters
    embeddings = {f"{n}_q": q[n] for n in "ft"} | {f"{n}_k": by_hand[n] for n in "ft"}
    _, expected = contrast_loss(embeddings, model.queue.keys, 0.07, "cross")
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
