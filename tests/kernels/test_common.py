"""How the kernels of both contrasts divide rows and columns among programs."""

from __future__ import annotations

import pytest
import torch

from cacl.kernels import common
from cacl.kernels.common import (
    MAX_SPLITS,
    MIN_TILES_PER_SPLIT,
    contrast_tile,
    grid_of,
    num_splits_heuristic,
)


@pytest.mark.parametrize("multiprocessors", [1, 8, 108, 132, 148])
def test_every_part_of_the_queue_has_tiles(multiprocessors: int) -> None:
    for blocks in (1, 2, 3, 16, 17, 100, 1000):
        for tiles in (*range(1, 150), 1024, 1093, 4096, 100_003):
            splits = num_splits_heuristic(blocks, tiles, multiprocessors)
            assert 1 <= splits <= MAX_SPLITS
            assert splits == 1 or splits * MIN_TILES_PER_SPLIT <= tiles
            # This is how `grid_of` deals them out.
            of_split = -(-tiles // splits)
            assert -(-tiles // of_split) == splits, (blocks, tiles)


@pytest.mark.parametrize("multiprocessors", [1, 8, 108, 132, 148])
def test_no_other_number_of_parts_is_sooner_done(multiprocessors: int) -> None:
    def rounds(blocks: int, tiles: int, splits: int) -> int:
        return -(-blocks * splits // multiprocessors) * -(-tiles // splits)

    for blocks in (1, 16, 17, 131, 133, 1000):
        for tiles in (1, 7, 64, 1024, 1093):
            chosen = rounds(blocks, tiles, num_splits_heuristic(blocks, tiles, multiprocessors))
            for splits in range(1, min(MAX_SPLITS, tiles // MIN_TILES_PER_SPLIT) + 1):
                assert chosen <= rounds(blocks, tiles, splits)


def test_2048_anchors_keep_128_of_132_multiprocessors_busy() -> None:
    tile = contrast_tile(128, torch.bfloat16)
    blocks = 2048 // tile.block_n
    assert blocks * num_splits_heuristic(blocks, 65_536 // tile.block_k, 132) == 128


@pytest.mark.parametrize("multiprocessors", [1, 8, 132])
def test_a_grid_covers_all_rows_and_columns(monkeypatch: pytest.MonkeyPatch, multiprocessors: int) -> None:
    monkeypatch.setattr(common, "multiprocessor_count", lambda _: multiprocessors)
    tile = contrast_tile(128, torch.bfloat16)
    for rows in (1, tile.block_n - 1, tile.block_n, tile.block_n + 1, 2048):
        for columns in (1, tile.block_k, tile.block_k + 1, 1001, 65_536):
            grid = grid_of(rows, columns, tile, torch.device("cpu"))
            assert (grid.blocks - 1) * tile.block_n < rows <= grid.blocks * tile.block_n
            assert grid.columns_per_split % tile.block_k == 0
            assert (grid.splits - 1) * grid.columns_per_split < columns <= grid.splits * grid.columns_per_split
