"""What all tests of several processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _one_process() -> Iterator[None]:
    """Lets the tests and fixtures themselves compute what a single process with one thread does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            patch.delenv(name, raising=False)
        yield
    torch.set_num_threads(threads)
