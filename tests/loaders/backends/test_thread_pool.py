"""Batches that are loaded in threads: complete, in order, ahead of the one asked for, and without those that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cacl.clips import ClipBatch, ClipPlan
from cacl.loaders.backends import cpu
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from tests.launch import ROOT
from tests.loaders.backends.clips import (
    MakeVideo,
    catalog,
    load,
    stream,
)


def batches_of(
    videos: Catalog, plans: Sequence[Sequence[ClipPlan]] | Iterator[list[ClipPlan]], threads: int = 2, prefetch: int = 2
) -> Iterator[ClipBatch]:
    return ThreadPoolBackend(cpu.load_clip, videos, size=32, threads=threads, prefetch=prefetch).batches(plans)


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (1, 5), (4, 1), (4, 3), (3, 50)])
def test_batches_are_complete_in_order_and_the_same(videos: Catalog, threads: int, prefetch: int) -> None:
    plans = stream(videos)
    made = list(batches_of(videos, plans, threads, prefetch))
    assert len(made) == len(plans)
    for batch, wanted in zip(made, plans, strict=True):
        assert batch.index.tolist() == [p.index for p in wanted]
        assert batch.video.tolist() == [p.video for p in wanted]
        assert batch.order.tolist() == [list(p.order) for p in wanted]
        assert [tuple(view.shape) for view in batch.views] == [(len(wanted), 3, 6, 32, 32)] * 2
        for slot, p in enumerate(wanted):
            alone = load(cpu.load_clip, videos.videos[p.video], p, 32)
            assert torch.equal(
                torch.stack(batch.views)[:, slot].double(), alone
            )  # bit for bit, and so nothing is missing
    assert decoding_threads() == []


def test_one_thread_takes_no_more_plans_than_it_looks_ahead(videos: Catalog) -> None:
    taken = []
    plans = (taken.append(0) or batch for batch in stream(videos))
    batches = batches_of(videos, plans, prefetch=2)
    for done in range(3):
        next(batches)
        assert len(taken) == done + 3
    assert isinstance(batches, Generator)
    batches.close()
    assert decoding_threads() == []
    assert next(plans, None) is not None, "it has not been read to its end"


def test_clips_that_fail_have_no_row_and_name_their_file(
    videos: Catalog, make_video: MakeVideo, tmp_path: Path
) -> None:
    path = make_video(tmp_path / "gone.mp4", frames=60)
    some = catalog(*videos.videos, probe(path))
    path.unlink()
    good, bad = stream(videos)[0], [replace(p, video=3) for p in stream(videos)[0]]
    whole, part, none, last = batches_of(some, [good, [good[0], *bad[1:3], good[3]], bad, good])
    assert whole.index.tolist() == last.index.tolist() == [0, 1, 2, 3]
    assert part.index.tolist() == [0, 3]
    assert [(failure.index, failure.video) for failure in part.failures] == [(1, 3), (2, 3)]
    assert all(failure.reason.startswith(f"{path}: ") for failure in part.failures)
    assert torch.equal(torch.stack(part.views), torch.stack(whole.views)[:, [0, 3]])
    assert (len(none), len(none.failures)) == (0, 4)
    assert [tuple(view.shape) for view in none.views] == [(0, 3, 6, 32, 32)] * 2
    assert decoding_threads() == []


def test_an_error_that_is_no_fault_of_the_data_stops(videos: Catalog) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ThreadPoolBackend(broken, videos, size=32, threads=2, prefetch=2).batches(stream(videos)))
    assert decoding_threads() == []


def test_shuffled_copies_are_a_gather(videos: Catalog) -> None:
    """The shuffled copy is the same as if the frames had been decoded in that order."""
    (wanted,) = stream(videos, steps=1)
    wanted = [replace(wanted[0], order=(3, 0, 1, 5, 2, 4))]
    (batch,) = batches_of(videos, [wanted])
    gathered = torch.stack(batch.views)[:, 0].index_select(2, batch.order[0].long())
    frames = [
        load(cpu.load_clip, videos.videos[p.video], replace(p, start=p.frame_numbers[n], length=1), 32)
        for p in wanted
        for n in p.order
    ]
    assert torch.equal(gathered.double(), torch.cat(frames, 2))


def test_each_thread_computes_alone(videos: Catalog) -> None:
    """The parallelism is over clips, though torch has several threads elsewhere."""
    seen: list[tuple[str, int]] = []
    together = threading.Barrier(2)

    def look(*_: object) -> None:
        together.wait(10)  # so that no thread does the work of both
        seen.append((threading.current_thread().name, torch.get_num_threads()))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(ThreadPoolBackend(look, videos, size=32, threads=2, prefetch=2).batches(stream(videos)[:-1]))
    finally:
        torch.set_num_threads(before)
    assert len({name for name, _ in seen}) == 2
    assert {threads for _, threads in seen} == {1}


def test_threads_of_the_caller_are_left_alone(videos: Catalog) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(batches_of(videos, stream(videos)))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_of_a_fresh_process_are_left_alone(videos: Catalog) -> None:
    """torch settles the number of a thread at its first parallel operation, which may come after the loader's."""
    code = (
        "import sys, torch; from pathlib import Path; from cacl.loaders.decode.probe import probe\n"
        "from tests.loaders.backends.clips import catalog, stream\n"
        "from tests.loaders.backends.test_thread_pool import batches_of\n"
        "videos = catalog(*(probe(Path(name)) for name in sys.argv[1:]))\n"
        "list(batches_of(videos, stream(videos))); print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, *(v.path for v in videos.videos)]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "2"
