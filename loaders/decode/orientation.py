"""How a container wants decoded frames to be mirrored and turned; `yuv.apply_orientation` does it."""

from __future__ import annotations

import math
import struct

from av.video.frame import VideoFrame

from cacl.errors import DataError

ROTATIONS = {0: (1, 0, 0, 1), 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
"""By degrees counter-clockwise: the (a, b, c, d) of the display matrix that turns a frame so."""
MAX_TILT = math.sqrt(2) * 2 * math.sin(math.radians(1) / 2)
"""The largest accepted distance of a display matrix from these: that of one which is a degree off."""


def display_orientation(frame: VideoFrame) -> tuple[bool, int]:
    """Reads from the display matrix of a frame how it has to be mirrored and turned.

    A pixel (x, y) of the frame is shown at (a x + c y, b x + d y), up to a shift (ISO/IEC 14496-12, 8.3.2).

    Args:
        frame: A decoded frame.

    Returns:
        Whether to mirror left and right, and the degrees to turn counter-clockwise afterwards (0, 90, 180 or 270).

    Raises:
        DataError: The matrix is something else than quarter turns and reflections.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, 0
    a, b, _, c, d, *_ = (value / 2**16 for value in struct.unpack("9i", bytes(data)))
    across, down = math.hypot(a, b), math.hypot(c, d)
    if across and down:
        a, b, c, d = a / across, b / across, c / down, d / down
        mirrored = a * d < b * c
        turned = (-a, -b, c, d) if mirrored else (a, b, c, d)
        for degrees, exact in ROTATIONS.items():
            if math.dist(turned, exact) <= MAX_TILT:
                return mirrored, degrees
    raise DataError(
        f"has the display matrix ({a:g}, {b:g}; {c:g}, {d:g}): only quarter turns and reflections are handled"
    )
