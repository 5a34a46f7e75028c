"""What the kernels of both contrasts share: limits, checks of inputs, tiles, splits, and loads and stores of tiles.

A program of such a kernel holds a block of rows (anchors) and walks over a part of the columns (keys), one tile of
BLOCK_N rows by BLOCK_K columns at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from cacl.kernels.dispatch import INTERPRETED

MAX_DIM = 512
"""The largest number of dimensions D of an embedding."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of embeddings that the kernels take. The references also take float64 on a CPU."""
MIN_KERNEL_LOGITS = 10_000_000
"""The number of logits, rows times columns, below which a GPU takes longer to launch the kernels than to multiply in
torch. The logits then fit into 40 MB. The number is an estimate that no GPU has confirmed yet; `cacl bench-kernels
--device cuda` measures problems on both sides of it."""

FLOAT32_PRECISION = "tf32x3"
"""How the kernels multiply float32: as three products of TF32, which is meant to be about as exact as float32."""

# --- Checks


def require_floating(**named: Tensor) -> None:
    """Checks the dtypes of embeddings.

    Args:
        **named: The tensors by the names that an error gives them.

    Raises:
        ValueError: A tensor is neither of `DTYPES`, nor float64 on a CPU.
    """
    for name, x in named.items():
        if x.dtype not in DTYPES and (x.dtype != torch.float64 or x.is_cuda):
            raise ValueError(f"{name} {x.dtype}: give float32, bfloat16 or float16, or on a CPU float64")


def temperature_tensor(temperature: float | Tensor, like: Tensor) -> Tensor:
    """Brings a temperature to the device of the embeddings and to the dtype of their sums.

    Args:
        temperature: A number, or a tensor with one element on the device of `like`.
        like: The embeddings.

    Returns:
        The temperature without dimensions: float32, or float64 if the embeddings are float64.

    Raises:
        ValueError: The tensor has more or less than one element, or is on another device.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    if not isinstance(temperature, Tensor):
        return torch.full((), temperature, dtype=dtype, device=like.device)
    if temperature.numel() != 1 or temperature.device != like.device:
        given = f"temperature {list(temperature.shape)} on {temperature.device}"
        raise ValueError(f"{given}: give a number, or a tensor that holds one, on {like.device}")
    return temperature.to(dtype).reshape(())


# --- Tiles and splits


class Tile(NamedTuple):
    """The tile that one program computes at a time, and how it is compiled."""

    block_n: int
    """The rows (anchors) of a tile."""
    block_k: int
    """The columns (keys) of a tile."""
    block_d: int
    """The dimensions that are multiplied at a time."""
    num_warps: int
    """The warps of a program."""
    num_stages: int
    """The stages of the software pipeline of the loop over columns."""


def contrast_tile(dim: int, dtype: torch.dtype) -> Tile:
    """Chooses the largest tile with which no GPU since Ampere runs out of registers or shared memory.

    The sizes are what the assembler accepts in tests/kernels/test_compiled_contrast.py.

    Args:
        dim: The number of dimensions D.
        dtype: The dtype of the embeddings.

    Returns:
        The tile.
    """
    width = max(16, triton.next_power_of_2(dim))
    if dtype == torch.float32:
        return {512: Tile(16, 16, 64, 8, 2), 256: Tile(16, 32, 64, 8, 2), 128: Tile(32, 32, 64, 8, 2)}.get(
            width, Tile(32, 64, width, 8, 2)
        )
    return {512: Tile(32, 32, 128, 8, 2), 256: Tile(64, 32, 128, 8, 2)}.get(width, Tile(128, 64, width, 8, 3))


MAX_SPLITS = 32
"""The most splits of the columns. What every split writes is read again, and must not count beside the rest."""
MIN_TILES_PER_SPLIT = 4
"""The fewest tiles of columns that a split has, for the same reason."""


def num_splits_heuristic(blocks: int, tiles: int, multiprocessors: int) -> int:
    """Chooses the number of splits of the columns with which the multiprocessors finish soonest.

    Every block of rows meets every tile of columns, and each multiprocessor has one program at a time.

    Args:
        blocks: The number of blocks of rows.
        tiles: The number of tiles of columns.
        multiprocessors: The number of multiprocessors of the GPU.

    Returns:
        The number of splits, the smallest of those that are equally good.
    """
    most = max(1, min(MAX_SPLITS, tiles // MIN_TILES_PER_SPLIT))

    def longest(splits: int) -> int:
        return triton.cdiv(blocks * splits, multiprocessors) * triton.cdiv(tiles, splits)

    return min(range(1, most + 1), key=lambda splits: (longest(splits), splits))


def multiprocessor_count(device: torch.device) -> int:
    """The number of multiprocessors of a GPU. The interpreter gets as many as make it split the columns."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


class Grid(NamedTuple):
    """How rows and columns are dealt out to programs: one program for each block of rows and split of the columns."""

    blocks: int
    """The number of blocks of rows."""
    splits: int
    """The number of splits of the columns."""
    columns_per_split: int
    """The columns of every split but the last, which may have fewer. It is a multiple of the columns of a tile."""


def grid_of(rows: int, columns: int, tile: Tile, device: torch.device) -> Grid:
    """Deals rows and columns out to programs.

    Args:
        rows: The number of rows, at least 1.
        columns: The number of columns, at least 1.
        tile: The tile of the kernel.
        device: The device that the kernel runs on.

    Returns:
        The numbers of blocks and splits, and the size of a split.
    """
    blocks, tiles = triton.cdiv(rows, tile.block_n), triton.cdiv(columns, tile.block_k)
    splits = num_splits_heuristic(blocks, tiles, multiprocessor_count(device))
    columns_per_split = triton.cdiv(tiles, splits) * tile.block_k
    return Grid(blocks, triton.cdiv(columns, columns_per_split), columns_per_split)


def needs_widening(x: Tensor) -> bool:
    """Tells whether a kernel must convert what it loads of this tensor to float32.

    The interpreter computes with the bits of bfloat16 as if they were integers.
    """
    return INTERPRETED and x.dtype == torch.bfloat16


# --- Parts of kernels
#
# The D dimensions of a block come in NUM_SLICES slices of BLOCK_D: the operands of a product of float32 live in
# registers, which blocks with all dimensions do not fit. A block is a tuple of its slices.

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def load_slice(x, rows, n, first_dim, D: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr):
    """Loads dimensions first_dim, first_dim + 1, ... of some rows of x [n, D]; outside of x it gives 0.

    `first_dim` is added to the pointer and not to the offsets, so that all slices share the registers that hold these.
    """
    dims = tl.arange(0, BLOCK_D)
    mask = (rows[:, None] < n) & (dims[None, :] < D - first_dim)
    values = tl.load(x + first_dim + rows[:, None] * D + dims[None, :], mask=mask, other=0.0)
    return values.to(tl.float32) if WIDEN else values


@triton.jit
def load_slices(x, rows, n, D: tl.constexpr, BLOCK_D: tl.constexpr, NUM_SLICES: tl.constexpr, WIDEN: tl.constexpr):
    """Loads some rows of x [n, D] as a tuple of slices."""
    slices = ()
    for i in tl.static_range(NUM_SLICES):
        slices = slices + (load_slice(x, rows, n, i * BLOCK_D, D, BLOCK_D, WIDEN),)
    return slices


@triton.jit
def store_slice(x, values, rows, n, first_dim, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores dimensions first_dim, first_dim + 1, ... of some rows of x [n, D]."""
    dims = tl.arange(0, BLOCK_D)
    mask = (rows[:, None] < n) & (dims[None, :] < D - first_dim)
    tl.store(x + first_dim + rows[:, None] * D + dims[None, :], values, mask=mask)


@triton.jit
def zero_slices(BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, NUM_SLICES: tl.constexpr):
    """Makes the slices of a block of zeros."""
    slices = ()
    for _ in tl.static_range(NUM_SLICES):
        slices = slices + (tl.zeros((BLOCK_N, BLOCK_D), tl.float32),)
    return slices


@triton.jit
def scale_slices(slices, factor, NUM_SLICES: tl.constexpr):
    """Multiplies all slices of a block by a factor, a number or one for each row."""
    scaled = ()
    for i in tl.static_range(NUM_SLICES):
        scaled = scaled + (slices[i] * factor,)
    return scaled


@triton.jit
def dot_columns(
    a,
    columns,
    column,
    remaining,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Multiplies a block of rows, a tuple of slices, with a tile of columns: a . columns^T, [BLOCK_N, BLOCK_K]."""
    products = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for i in tl.static_range(NUM_SLICES):
        b = load_slice(columns, column, remaining, i * BLOCK_D, D, BLOCK_D, WIDEN)  # [BLOCK_K, BLOCK_D]
        products = tl.dot(a[i], tl.trans(b), products, input_precision=PRECISION)
    return products


@triton.jit
def add_weighted_columns(
    acc,
    weights,
    columns,
    column,
    remaining,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_SLICES: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Adds the columns of a tile, times weights [BLOCK_N, BLOCK_K] in their dtype, to the slices of acc."""
    updated = ()
    for i in tl.static_range(NUM_SLICES):
        b = load_slice(columns, column, remaining, i * BLOCK_D, D, BLOCK_D, WIDEN)  # [BLOCK_K, BLOCK_D]
        updated = updated + (tl.dot(weights.to(b.dtype), b, acc[i], input_precision=PRECISION),)
    return updated
