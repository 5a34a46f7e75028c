"""Batches of the DALI backend: in their order, ahead of the one asked for, and in memory that nobody else writes to."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cacl.clips import ClipPlan
from cacl.loaders.backends import dali
from cacl.loaders.backends.dali_graph import BorrowedOutputs
from cacl.loaders.catalog.catalog import Catalog
from tests.loaders.backends.clips import catalog, view
from tests.loaders.backends.dali.clips import (
    SIZE,
    VIEW_MAKERS,
    ViewMakerName,
    assert_rounding_only,
    dali_backend,
    plan,
    reference_backend,
    views_of,
)

pytest.importorskip("nvidia.dali")


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
def test_batches_keep_their_order_and_length(videos: Catalog, view_maker: ViewMakerName) -> None:
    """Three batches are made ahead, the length of batches changes, and one view follows after two."""
    rng = np.random.default_rng(0)
    batches = []
    for length, views in [*[(3, 2)] * 5, (1, 2), *[(2, 2)] * 4, (4, 1), (4, 1), (1, 1)]:
        numbers = [(len(batches) * 10 + slot, int(rng.integers(4))) for slot in range(length)]
        crop = [view(2 * v, 4, SIZE, flip=bool(v)) for v in range(views)]
        batches.append([plan(index, video, *crop, start=index % 20) for index, video in numbers])
    taken = []

    def observed() -> Iterator[list[ClipPlan]]:
        for batch in batches:
            taken.append(batch[0].index)
            yield batch

    ours = dali_backend(videos, views=view_maker).batches(observed())
    first = next(ours)
    assert len(taken) > 3, "batches are prepared ahead"
    for mine, theirs, plans in zip([first, *ours], reference_backend(videos).batches(batches), batches, strict=True):
        assert mine.index.tolist() == [p.index for p in plans]
        assert mine.video.tolist() == [p.video for p in plans]
        assert mine.order.tolist() == [list(p.order) for p in plans]
        for field in ("index", "video", "order"):
            assert getattr(mine, field).dtype == getattr(theirs, field).dtype
        assert [view.dtype for view in mine.views] == [view.dtype for view in theirs.views]
        assert_rounding_only(views_of(mine), views_of(theirs))


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
def test_a_batch_outlives_the_ones_after_it(videos: Catalog, view_maker: ViewMakerName) -> None:
    """DALI reuses its memory, so a batch must not lie in it."""
    batches = [[plan(index, index % 4, view(0, 0, 40), start=index)] for index in range(8)]
    made, early = [], []
    for batch in dali_backend(videos, views=view_maker).batches(batches):
        made.append(batch.views)
        early.append([view.clone() for view in batch.views])
    assert all(torch.equal(a, b) for a, b in zip(itertools.chain(*made), itertools.chain(*early), strict=True))


@pytest.mark.parametrize("view_maker", VIEW_MAKERS)
def test_views_lie_in_memory_of_torch(
    videos: Catalog, view_maker: ViewMakerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DALI's own memory may go to its next batch before a GPU has read it."""
    addresses = []
    tensors = type(dali_backend(videos, views=view_maker).view_maker).to_tensors

    def observed(views: Any, outputs: Sequence[Any], plans: Any) -> Sequence[Tensor]:
        addresses.extend(torch.from_dlpack(clip).data_ptr() for output in outputs for clip in output)
        return tensors(views, outputs, plans)

    backend = dali_backend(videos, views=view_maker)
    monkeypatch.setattr(type(backend.view_maker), "to_tensors", observed)
    (batch,) = backend.batches([[plan(0, 0, view(0, 0, 40)), plan(1, 1, view(0, 0, 40))]])
    assert addresses
    assert not {clip.data_ptr() for view in batch.views for clip in view} & set(addresses)


class Memory:
    """This stands in for outputs of DALI."""


class Backlog:
    """This is an event of a GPU that is busy until `done`, or until somebody waits for it."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True


def test_what_dali_lent_is_held_until_it_was_read() -> None:
    borrowed, events = BorrowedOutputs(3), [Backlog() for _ in range(7)]
    memory: list[weakref.ref[Memory]] = []

    def hold(event: Backlog) -> list[bool]:
        outputs = Memory()
        memory.append(weakref.ref(outputs))
        borrowed.hold(outputs, event)
        del outputs
        return [reference() is not None for reference in memory]

    assert [hold(event) for event in events[:3]][-1] == [True] * 3
    events[1].done = True  # one after another, as they were recorded
    assert hold(events[3]) == [False, False, True, True]
    assert events[0].done, "one more than may be held, and it was not waited for"
    assert not events[2].done, "waited for more than was needed"
    events[2].done = events[3].done = True
    assert hold(events[4]) == [False] * 4 + [True]
    hold(events[5])
    borrowed.close()
    assert events[5].done
    assert not any(reference() for reference in memory)


def test_a_device_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI runs on number None as if there were no GPU."""
    monkeypatch.setattr(dali, "unavailable_reason", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert dali_backend(catalog(), torch.device("cuda")).device == torch.device("cuda", 3)
    assert dali_backend(catalog(), torch.device("cuda", 1)).device == torch.device("cuda", 1)


@pytest.mark.parametrize("pipelines", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_pipelines_take_turns(videos: Catalog, pipelines: int, count: int) -> None:
    """The same batches come in the same order, however many pipelines make them."""
    batches = [[plan(2 * n + i, (n + i) % 4, view(2 * n, 0, 40), start=n) for i in range(2)] for n in range(count)]
    made = list(dali_backend(videos, pipelines=pipelines).batches(batches))
    assert [batch.index.tolist() for batch in made] == [[2 * n, 2 * n + 1] for n in range(count)]
    for batch, theirs in zip(made, dali_backend(videos, pipelines=2).batches(batches), strict=True):
        assert torch.equal(views_of(batch), views_of(theirs))


def test_iteration_may_stop_early(videos: Catalog) -> None:
    endless = ([plan(0, 0, view(0, 0, 40))] for _ in iter(int, 1))
    batches = dali_backend(videos).batches(endless)
    next(batches)
    assert isinstance(batches, Generator)
    batches.close()
    assert list(dali_backend(videos).batches([])) == []
