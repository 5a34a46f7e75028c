"""How what runs on a CPU is dealt out to threads, each of which goes through many operations of torch on its own.

Where torch divides every single operation, its threads wait for each other after each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Calls a function with every item, each in a thread of its own, in which torch takes no further threads.

    A single item needs no thread: torch divides its operations. No gradient flows through the function.

    Args:
        function: What to call. It must not change what another call reads.
        items: The items, of which there should be no more than `torch.get_num_threads()`.

    Returns:
        The results in the order of the items.
    """
    function = torch.no_grad()(function)
    if len(items) == 1:
        return [function(items[0])]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(items), "map", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        # A thread that sets it sets it for itself and for all that first call torch later.
        torch.set_num_threads(threads)
