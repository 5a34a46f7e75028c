"""Operations that are dealt out to threads: each computes alone, and the number of threads is as before."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from cacl.kernels.threads import map_in_threads


@pytest.fixture(autouse=True)
def three_threads(set_threads: Callable[[int], None]) -> None:
    set_threads(3)


def threads_seen() -> list[int]:
    """The numbers of threads that torch takes in this thread, and in one that starts now."""
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return [torch.get_num_threads(), *later]


def test_each_item_has_a_thread_that_computes_alone() -> None:
    together = threading.Barrier(3, timeout=60)  # in one thread, nobody else would ever come

    def called(item: int) -> tuple[int, int]:
        together.wait()
        return item, torch.get_num_threads()

    assert map_in_threads(called, [5, 3, 4]) == [(5, 1), (3, 1), (4, 1)]
    assert threads_seen() == [3, 3]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("map")]


def test_a_single_item_stays_in_its_thread() -> None:
    assert map_in_threads(lambda _: (threading.get_ident(), torch.get_num_threads()), [0]) == [
        (threading.get_ident(), 3)
    ]


def test_an_error_comes_out_and_changes_nothing() -> None:
    def fails(item: int) -> None:
        raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        map_in_threads(fails, [1, 2])
    assert threads_seen() == [3, 3]


def test_no_gradient_flows() -> None:
    leaf = torch.ones(2, requires_grad=True)
    for items in ([1], [1, 2]):
        assert not any(x.requires_grad for x in map_in_threads(lambda factor: factor * leaf, items))
