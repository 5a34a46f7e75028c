"""The frames of one synthetic video: a texture that moves.

One frame says nothing about the motion. Orientation and position are uniform in every frame of every motion. The scale
of a zoom has to change; a video that does not zoom stands still at the scale that a zoom has at a drawn moment. Hence
a frame taken at random from a video has exactly the same distribution under all motions, and the members of a pair
(left and right, ...) are each other's time reverse: only several frames in their order tell the motion. What does tell
a little is to know where in its video a frame lies, since a zoom-in starts small: take clips from all of the video.

Lengths on the screen are in points: the short side of a frame has 80 of them, so a larger frame shows the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cacl.loaders.sampling.augmentation import BT601_LUMA
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.synthetic.textures import PERIOD, TEXTURES

MOTIONS: dict[str, tuple[int, int, int, int]] = {
    "left": (-1, 0, 0, 0),
    "right": (1, 0, 0, 0),
    "up": (0, -1, 0, 0),
    "down": (0, 1, 0, 0),
    "clockwise": (0, 0, 1, 0),
    "counter-clockwise": (0, 0, -1, 0),
    "zoom-in": (0, 0, 0, 1),
    "zoom-out": (0, 0, 0, -1),
}
"""The motions by name, with their directions as seen on the screen: to the right, downwards, clockwise, growing."""

DEFAULT_FRAMES = 40
DEFAULT_SIZE = (80, 96)
"""Height and width in pixels."""

POINTS_PER_SHORT_SIDE = 80
SHIFT_RANGE = (1.0, 2.5)
"""Points per frame."""
TURN_RANGE = (math.radians(2.5), math.radians(5.0))
"""Radians per frame."""
ZOOM_RANGE = (0.015, 0.03)
"""Growth of the logarithm of the scale per frame, in videos of up to `ZOOM_FRAMES` frames. In longer ones it is less,
so that they sweep no wider range of scales."""
ZOOM_FRAMES = 40
SPEED_RANGES = {"horizontal": SHIFT_RANGE, "vertical": SHIFT_RANGE, "rotation": TURN_RANGE, "zoom": ZOOM_RANGE}
"""The axes, in the order of the directions in `MOTIONS`, with the speeds along them."""
LOG_SCALE_RANGE = (math.log(0.8), math.log(1.25))
"""The logarithm of the scale in the middle of a zoom."""
POINTS_PER_CELL = 18.0
"""The width of a cell at scale 1. It is so wide that the smallest pattern moves by less than half its period in two
frames."""
DARK_LUMA, LIGHT_LUMA = 75, 180


class MotionLabels(NamedTuple):
    """What the motion of one video has in common with other motions."""

    axis: str
    """A name of `SPEED_RANGES`. The two motions that have an axis are each other's time reverse."""
    direction: str
    """`forwards` where the direction in `MOTIONS` is positive (right, down, clockwise, zoom-in), or `backwards`. Which
    of the two has which name is a convention. Within an axis, whoever tells them apart tells time's arrow."""
    speed: str
    """`slow` where the speed lies in the lower half of its range, or `fast`. In videos of more than `ZOOM_FRAMES`
    frames, the speed of a zoom and its range are less by the same factor, so the half is the same."""


def motion_labels(motion: str, rng: RandomStream) -> MotionLabels:
    """Tells axis, direction and speed of a video.

    Args:
        motion: A name of `MOTIONS`.
        rng: The random numbers that `render` takes for this video, from the first one on.

    Returns:
        The labels.
    """
    ((axis, sign),) = ((axis, sign) for axis, sign in zip(SPEED_RANGES, MOTIONS[motion], strict=True) if sign)
    middle = sum(SPEED_RANGES[axis]) / 2
    return MotionLabels(
        axis=axis,
        direction="forwards" if sign > 0 else "backwards",
        speed="slow" if draw_speeds(rng)[axis] < middle else "fast",
    )


def draw_speeds(rng: RandomStream) -> dict[str, float]:
    """Draws how fast a video moves. These are the first random numbers of a video.

    Args:
        rng: The random numbers that `render` takes for this video, from the first one on.

    Returns:
        The speed along each axis, in the units of its range. Where a video does not move along an axis, it has no use.
    """
    shift, turn, zoom = rng.uniform(*SHIFT_RANGE), rng.uniform(*TURN_RANGE), rng.uniform(*ZOOM_RANGE)
    return {"horizontal": shift, "vertical": shift, "rotation": turn, "zoom": zoom}


def render(
    motion: str,
    appearance: str,
    rng: RandomStream,
    *,
    frames: int = DEFAULT_FRAMES,
    size: tuple[int, int] = DEFAULT_SIZE,
) -> np.ndarray:
    """Renders one video before encoding.

    The same random numbers give the same texture, colours, orientation and position under every motion, and the videos
    of a pair of motions are each other's time reverse to the last bit.

    Args:
        motion: A name of `MOTIONS`.
        appearance: A name of `TEXTURES`.
        rng: The random numbers.
        frames: The number of frames.
        size: Height and width in pixels.

    Returns:
        The RGB frames, uint8 [T, H, W, 3].
    """
    height, width = size
    pixels_per_point = min(size) / POINTS_PER_SHORT_SIDE
    x = ((np.arange(width, dtype=np.float32) - (width - 1) / 2) / pixels_per_point)[None, :]
    y = ((np.arange(height, dtype=np.float32) - (height - 1) / 2) / pixels_per_point)[:, None]

    poses = _draw_poses(motion, rng, frames)
    palette = _draw_palette(rng)
    u0, v0 = rng.uniform(0, PERIOD), rng.uniform(0, PERIOD)
    texture = TEXTURES[appearance](rng)

    video = np.empty((frames, height, width, 3), dtype=np.uint8)
    for frame, pose in zip(video, poses, strict=True):
        points_per_cell = POINTS_PER_CELL * pose.scale
        cos, sin = math.cos(pose.angle) / points_per_cell, math.sin(pose.angle) / points_per_cell
        right, down = x - pose.right, y - pose.down
        tone = texture(u0 + cos * right + sin * down, v0 - sin * right + cos * down, points_per_cell * pixels_per_point)
        frame[:] = palette[(tone * 255 + 0.5).astype(np.uint8)]
    return video


class _Pose(NamedTuple):
    """Where the texture lies on the screen: it is turned about the middle, then scaled, then shifted.

    y points down, so a positive angle is a clockwise turn.
    """

    right: float
    """Points."""
    down: float
    """Points."""
    angle: float
    """Radians."""
    scale: float


def _draw_poses(motion: str, rng: RandomStream, frames: int) -> list[_Pose]:
    speeds = draw_speeds(rng)
    zoom = speeds["zoom"] * min(1.0, ZOOM_FRAMES / frames)
    angle, log_scale = rng.uniform(0, 2 * math.pi), rng.uniform(*LOG_SCALE_RANGE)
    times = [frame - (frames - 1) / 2 for frame in range(frames)]  # symmetrical, so that reversing a video negates them
    still = times[rng.integer(0, frames)]
    right, down, clockwise, growing = MOTIONS[motion]
    return [
        _Pose(
            right=right * speeds["horizontal"] * time,
            down=down * speeds["vertical"] * time,
            angle=angle + clockwise * speeds["rotation"] * time,
            scale=math.exp(log_scale + zoom * (growing * time if growing else still)),
        )
        for time in times
    ]


def _draw_palette(rng: RandomStream) -> np.ndarray:
    """Draws the colour of every tone, uint8 [256, 3]: from a dark random colour to a light one.

    Dark and light have the same luma in all videos, or brightness would tell videos apart at no effort.
    """
    return np.round(np.linspace(_draw_color(rng, DARK_LUMA), _draw_color(rng, LIGHT_LUMA), 256)).astype(np.uint8)


def _draw_color(rng: RandomStream, luma: float) -> np.ndarray:
    """Draws an RGB colour in 0..255 of this luma."""
    while True:
        color = np.array([rng.uniform(0, 255) for _ in range(3)])
        color += luma - BT601_LUMA @ color
        if color.min() >= 0 and color.max() <= 255:
            return color
