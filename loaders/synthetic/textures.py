"""The appearances of the synthetic set: procedural textures.

Every texture shows every motion. A plain grating would hide the motion along its stripes, and rings around the centre
of the frame would hide a turn; each texture here has corners, or edges in many directions, wherever one looks.

Each function that makes a texture draws what is random in it and returns a function of the position.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from cacl.loaders.sampling.rng import RandomStream

Texture: TypeAlias = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""A function (u, v, pixels per cell) -> tone. u and v are positions in the texture in cells, float32 [H, W]; the tone
lies in [0, 1], float32 [H, W]. Hard edges are smoothed over about one pixel, or they would jump from pixel to pixel."""

PERIOD = 16
"""Cells after which a texture may repeat itself; a power of two."""


def _checkerboard(rng: RandomStream) -> Texture:
    """Makes squares of one cell in two tones."""

    def tone(u: np.ndarray, v: np.ndarray, pixels_per_cell: float) -> np.ndarray:
        return 0.5 + 2 * _stripes(u, pixels_per_cell) * _stripes(v, pixels_per_cell)

    return tone


def _stripes(u: np.ndarray, pixels_per_cell: float) -> np.ndarray:
    """Returns -1/2 and 1/2 in turn, one cell each."""
    distance = np.abs(u - 2 * np.floor(u / 2) - 1) - 0.5  # to the nearest edge, signed
    return np.clip(distance * pixels_per_cell, -0.5, 0.5)


def _dots(rng: RandomStream) -> Texture:
    """Makes a disc in every cell, of its own size and position."""
    radius = _random_table(rng, 0.18, 0.4)
    slack = 0.46 - radius  # a disc stays inside its cell, so that a position has to look at one disc only
    centre_u = 0.5 + slack * _random_table(rng, -1, 1)
    centre_v = 0.5 + slack * _random_table(rng, -1, 1)

    def tone(u: np.ndarray, v: np.ndarray, pixels_per_cell: float) -> np.ndarray:
        column, row = np.floor(u), np.floor(v)
        cell = _table_index(column, row)
        distance = radius[cell] - np.hypot(u - column - centre_u[cell], v - row - centre_v[cell])
        return _coverage(distance, pixels_per_cell)

    return tone


def _waves(rng: RandomStream) -> Texture:
    """Makes stripes that swing so far from side to side that their edges point in all directions."""

    def tone(u: np.ndarray, v: np.ndarray, pixels_per_cell: float) -> np.ndarray:
        swing = 0.45 * np.sin(math.pi * u)
        return 0.5 + 0.5 * np.sin(1.5 * math.pi * (v + swing))

    return tone


def _noise(rng: RandomStream) -> Texture:
    """Makes soft blobs: a sum of cosines in all directions, of random wavelength and phase."""
    count = 9
    directions = [math.pi * (k + rng.uniform(0, 1)) / count for k in range(count)]
    waves = [(direction, rng.uniform(2.5, 6.0), rng.uniform(0, 2 * math.pi)) for direction in directions]

    def tone(u: np.ndarray, v: np.ndarray, pixels_per_cell: float) -> np.ndarray:
        total = sum(np.cos(n * math.cos(d) * u + n * math.sin(d) * v + phase) for d, n, phase in waves)
        return np.clip(0.5 + 0.16 * total, 0, 1)

    return tone


def _bricks(rng: RandomStream) -> Texture:
    """Makes a wall in running bond: bricks of two cells by one, each of its own tone, in mortar."""
    shade = _random_table(rng, 0.45, 1)

    def tone(u: np.ndarray, v: np.ndarray, pixels_per_cell: float) -> np.ndarray:
        row = np.floor(v)
        along = u / 2 + row / 2  # every row starts half a brick further
        column = np.floor(along)
        inside = np.minimum(1 - np.abs(2 * (along - column) - 1), 0.5 - np.abs(v - row - 0.5))
        return shade[_table_index(column, row)] * _coverage(inside - 0.08, pixels_per_cell)

    return tone


def _cells(rng: RandomStream) -> Texture:
    """Makes the cells of a Voronoi diagram, parted by gaps: a giraffe's coat."""
    site_u, site_v = _random_table(rng, 0.1, 0.9), _random_table(rng, 0.1, 0.9)

    def tone(u: np.ndarray, v: np.ndarray, pixels_per_cell: float) -> np.ndarray:
        column, row = np.floor(u), np.floor(v)
        nearest = second = np.full_like(u, np.inf)
        for right in (-1, 0, 1):
            for down in (-1, 0, 1):
                cell = _table_index(column + right, row + down)
                squared = (u - column - right - site_u[cell]) ** 2 + (v - row - down - site_v[cell]) ** 2
                second = np.minimum(second, np.maximum(nearest, squared))
                nearest = np.minimum(nearest, squared)
        return _coverage((np.sqrt(second) - np.sqrt(nearest)) / 2 - 0.06, pixels_per_cell)

    return tone


TEXTURES: dict[str, Callable[[RandomStream], Texture]] = {
    "checkerboard": _checkerboard,
    "dots": _dots,
    "waves": _waves,
    "noise": _noise,
    "bricks": _bricks,
    "cells": _cells,
}
"""The appearances by name, each with the function that makes its texture."""


def _random_table(rng: RandomStream, low: float, high: float) -> np.ndarray:
    """Draws a number for every cell of a period, float32 [PERIOD * PERIOD]."""
    return np.array([rng.uniform(low, high) for _ in range(PERIOD * PERIOD)], dtype=np.float32)


def _table_index(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns the positions in a `_random_table` of cells that are given by whole numbers of any size."""
    mask = PERIOD - 1
    return (row.astype(np.intp) & mask) * PERIOD + (column.astype(np.intp) & mask)


def _coverage(distance: np.ndarray, pixels_per_cell: float) -> np.ndarray:
    """Returns how much of a pixel a shape covers whose edge is `distance` cells away; inside it, that is positive."""
    return np.clip(0.5 + distance * pixels_per_cell, 0, 1)
