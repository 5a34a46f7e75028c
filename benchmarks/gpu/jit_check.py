"""Compiles the kernels for a GPU that is not there, and says what does not compile or fit.

    python -m benchmarks.gpu.jit_check [--capability 90] [--few]

These are the launches of the tests and of the benchmarks. The tests of resources (tests/kernels/test_compiled_*.py)
compile a few launches in full. This goes through Triton's own launcher, up to the launch: with the sizes that it
specialises, 1 and multiples of 16, and for many shapes. It does not work under TRITON_INTERPRET=1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from cacl.benchmarks.kernels.resources import SHARED_LIMIT
from cacl.kernels import common
from cacl.kernels.augment_triton import launch_augment
from cacl.kernels.common import DTYPES
from cacl.kernels.contrast_triton import launch_backward, launch_forward
from cacl.kernels.edit_distance_triton import launch_sequences, launch_to_identity
from cacl.kernels.symmetric_triton import launch_gradient, launch_logsumexp

MULTIPROCESSORS = {80: 108, 90: 132, 100: 148}


class AbsentDriver:
    """The driver of a GPU that is not there: as much as the compiler asks of one."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        """The architecture to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """The number of the GPU."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """The stream of launches."""
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Where the tensors are: there is no GPU for them."""
        return torch.device("cpu")


class Case(NamedTuple):
    """A launch to compile."""

    name: str
    launch: Callable[[], object]


CONTRASTS = [(1, 1, 1, 1), (5, 2, 2, 3), (129, 7, 63, 16), (252, 3, 64, 33), (33, 8, 65, 100), (64, 2, 1001, 123)]
CONTRASTS += [(300, 4, 65, 128), (2, 5, 1001, 128), (4, 6, 8193, 64), (3, 1, 257, 252), (17, 2, 130, 507)]
CONTRASTS += [(65, 1, 64, 512), (2048, 1, 65536, 128), (40, 0, 1001, 33), (1, 1, 1, 128)]
"""Anchors, positives, keys, dimensions."""
BATCHES = [(1, 1, 33), (2, 2, 3), (5, 5, 16), (63, 63, 128), (64, 64, 100), (65, 65, 512), (129, 129, 252)]
BATCHES += [(300, 300, 33), (507, 507, 128), (65, 1000, 33), (16384, 16384, 128)]
"""Rows, columns, dimensions."""
VIEWS = [(1, 1, 1, 13, 13), (1, 1, 1, 1, 5), (1, 1, 1, 7, 1), (9, 1, 1, 12, 7), (2, 3, 3, 11, 11), (1, 1, 11, 12, 9)]
VIEWS += [(2, 3, 4, 112, 112), (2, 16, 8, 64, 16), (2, 64, 16, 112, 112), (2, 64, 16, 210, 112)]
"""Views, clips, frames, side of the crop, side of the view."""
LENGTHS = [1, 2, 3, 15, 16, 18, 31, 32, 33, 63, 64]


def contrast_both_ways(n: int, p: int, k: int, d: int, dtype: torch.dtype) -> None:
    """Launches the kernels of the contrast with a queue, forward and backward."""
    anchors, positives = torch.empty(n, d, dtype=dtype), torch.empty(n, p, d, dtype=dtype)
    temperature = torch.tensor(0.07)
    outputs = launch_forward(anchors, positives, torch.empty(k, d, dtype=dtype), temperature)
    kept = outputs[1], outputs[2], outputs[4]
    for needs_d_positives in (True, False):
        launch_backward(torch.empty(n, p), torch.empty(n), anchors, positives, temperature, *kept, needs_d_positives)


def symmetric_both_ways(n: int, m: int, d: int, dtype: torch.dtype, rank_offset: int) -> None:
    """Launches the kernels of the symmetric contrast, forward and backward."""
    rows, columns, temperature = torch.empty(n, d, dtype=dtype), torch.empty(m, d, dtype=dtype), torch.tensor(0.07)
    launch_logsumexp(rows, columns, temperature, rank_offset)
    launch_gradient(rows, columns, temperature, rank_offset, torch.ones(n, 2), torch.ones(m, 2))


def pairs(batch: int, dtype: torch.dtype) -> None:
    """Launches the kernel of the edit distance of two sequences."""
    lengths = torch.ones(batch, dtype=torch.int32)
    first, second = (torch.zeros(batch, length, dtype=dtype) for length in (66, 9))
    launch_sequences(first, second, lengths, lengths)


def views(count: int, clips: int, length: int, side: int, size: int) -> None:
    """Launches the kernel that makes views of clips."""
    frames = [torch.zeros(length, side + 4, side + 9, 3, dtype=torch.uint8)] * clips
    crops = torch.tensor([[[1, 2, side, 0]] * clips] * count, dtype=torch.int32)
    launch_augment(frames, crops, torch.zeros(count, clips, 3, 4), size)


def cases(few: bool) -> Iterator[Case]:
    """Yields the launches; with `few`, only the last of each kind."""
    some: Callable[[list[Any]], list[Any]] = lambda listed: listed[-1:] if few else listed  # noqa: E731
    for size in some(CONTRASTS):
        for dtype in some(list(DTYPES)):
            yield Case(f"contrast {size} {dtype}", partial(contrast_both_ways, *size, dtype))
    for size in some(BATCHES):
        for dtype in some(list(DTYPES)):
            for rank_offset in some([0, 1, 64]):
                yield Case(
                    f"symmetric {size} {dtype} {rank_offset=}", partial(symmetric_both_ways, *size, dtype, rank_offset)
                )
    for length in some(LENGTHS):
        for batch in some([1, 16, 129]):
            order: Tensor = torch.zeros(batch, length, dtype=torch.uint8)
            yield Case(f"orders {batch} x {length}", partial(launch_to_identity, order))
    for dtype in some([torch.int32, torch.int64]):
        for batch in some([1, 33, 64]):
            yield Case(f"pairs {batch} {dtype}", partial(pairs, batch, dtype))
    for shape in some(VIEWS):
        yield Case(f"augment {shape}", partial(views, *shape))


def main() -> None:
    """Compiles all cases and prints what fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, choices=list(MULTIPROCESSORS), default=90)
    parser.add_argument("--few", action="store_true", help="one shape of each kernel")
    args = parser.parse_args()
    driver.set_active(AbsentDriver(args.capability))  # pyright: ignore[reportArgumentType]
    common.multiprocessor_count = lambda _: MULTIPROCESSORS[args.capability]
    launched, compiled = JITFunction.run, dict[tuple[str, str], Any]()

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel: Any = launched(self, *arguments, grid=grid, warmup=True, **options)
        compiled[self.__name__, kernel.hash] = kernel
        return kernel

    JITFunction.run = compile_only
    started, failures = time.perf_counter(), 0
    for case in cases(args.few):
        try:
            case.launch()
        except Exception as error:  # of Triton's many kinds
            failures += 1
            print(f"{case.name}: {type(error).__name__}: {str(error).strip().splitlines()[-1:]}", flush=True)
    limit = SHARED_LIMIT[args.capability]
    for (name, _), kernel in compiled.items():
        if kernel.metadata.shared > limit:
            failures += 1
            print(f"{name}: takes {kernel.metadata.shared} bytes of shared memory, and a block may have {limit}")
    names = ", ".join(f"{count} of {name}" for name, count in Counter(name for name, _ in compiled).items())
    print(
        f"triton {triton.__version__}, sm_{args.capability}: {len(compiled)} kernels ({names}) in "
        f"{time.perf_counter() - started:.0f} s, {failures} failures"
    )
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
