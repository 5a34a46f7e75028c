"""What makes views of decoded frames in the DALI backend: DALI's operators in its graph, or our kernel behind it.

B is the number of clips in a batch, and V the number of views of each clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cacl.clips import ViewPlan
from cacl.kernels.augment import augment

Node: TypeAlias = Any
"""A DataNode of DALI, whose stubs say less about what its operators take and return than would help."""


class ViewMaker(Protocol):
    """Makes the views of a batch, partly as the end of the graph and partly of what the graph returns."""

    inputs_per_view: int
    """How many inputs of the graph describe one view."""

    def view_inputs(self, views: Sequence[ViewPlan]) -> list[np.ndarray]:
        """Describes one view of each clip to the graph.

        Args:
            views: B plans.

        Returns:
            An array for each of the `inputs_per_view`, with a row for each clip.
        """
        ...

    def graph_outputs(self, frames: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
        """Adds the end of the graph.

        Args:
            frames: The node of the frames of all views, or one node for each view. They are uint8 RGB of any size in
                DALI's layout FHWC.
            inputs: The nodes of the inputs of the first view, then of the second, and so on.

        Returns:
            The outputs of the graph.
        """
        ...

    def to_tensors(self, outputs: Sequence[Any], plans: Sequence[Sequence[ViewPlan]]) -> Sequence[Tensor]:
        """Makes tensors of what the graph returned.

        Args:
            outputs: What the graph returned. It is read on torch's current stream.
            plans: For each of the V views, the B plans.

        Returns:
            V tensors, each float16 [B, 3, T, size, size], in memory of torch.
        """
        ...


TO_8_BIT_RANGE = np.array([1 / 255, 1 / 255, 1 / 255, 1], np.float32)
"""Turns the colour matrix of a view, which is for RGB in [0, 1], into one for RGB in 0..255."""


class DaliViews:
    """Views that the graph makes, ahead of time.

    Args:
        size: Height and width of a view in pixels.
    """

    inputs_per_view = 4

    def __init__(self, size: int) -> None:
        self.size = size

    def view_inputs(self, views: Sequence[ViewPlan]) -> list[np.ndarray]:
        """Describes one view of each clip, see `ViewMaker.view_inputs`.

        Args:
            views: B plans.

        Returns:
            The upper left corner int32 [B, 2], the height and width int32 [B, 2], the colour matrix float32 [B, 3, 4]
            and whether the view is mirrored int32 [B].
        """
        return [
            np.array([(view.top, view.left) for view in views], np.int32),
            np.array([(view.side, view.side) for view in views], np.int32),
            np.stack([view.color * TO_8_BIT_RANGE for view in views]),
            np.array([view.flip for view in views], np.int32),
        ]

    def graph_outputs(self, frames: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
        """Adds the operators that make each view, see `ViewMaker.graph_outputs`."""
        count = self.inputs_per_view
        starts = range(0, len(inputs), count)
        return [
            self._view(own, *inputs[start : start + count]) for own, start in zip(cycle(frames), starts, strict=False)
        ]

    def _view(self, frames: Node, start: Node, shape: Node, color: Node, mirror: Node) -> Node:
        from nvidia.dali import fn, types

        # The view is cropped first: resizing a region of interest would let pixels from outside leak in at its edges.
        view: Node = fn.slice(frames, start=start, shape=shape, axis_names="HW")
        view = fn.resize(view, size=[self.size, self.size], antialias=True, dtype=types.DALIDataType.FLOAT)
        view = fn.coord_transform(view, MT=color)
        return fn.crop_mirror_normalize(view, mirror=mirror, dtype=types.DALIDataType.FLOAT16, output_layout="CFHW")

    def to_tensors(self, outputs: Sequence[Any], plans: Sequence[Sequence[ViewPlan]]) -> Sequence[Tensor]:
        """Copies the views out of DALI's memory, see `ViewMaker.to_tensors`."""
        return [torch.from_dlpack(output.as_tensor()).clone() for output in outputs]


class KernelViews:
    """Views that our kernel makes of the frames of the graph when they are asked for, on torch's current stream.

    Args:
        size: Height and width of a view in pixels.
    """

    inputs_per_view = 1

    def __init__(self, size: int) -> None:
        self.size = size

    def view_inputs(self, views: Sequence[ViewPlan]) -> list[np.ndarray]:
        """Describes one view of each clip, see `ViewMaker.view_inputs`.

        Args:
            views: B plans.

        Returns:
            The last row and column of each view, int32 [B, 2].
        """
        return [np.array([(view.top + view.side - 1, view.left + view.side - 1) for view in views], np.int32)]

    def graph_outputs(self, frames: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
        """Returns the frames and one pixel of each view, see `ViewMaker.graph_outputs`."""
        from nvidia.dali import fn

        # These pixels serve nothing but that the graph dies of frames that are smaller than they were when the video
        # was scanned, as it does when it crops them itself.
        pixels = (
            fn.slice(own, start=last, shape=[1, 1], axis_names="HW")
            for own, last in zip(cycle(frames), inputs, strict=False)
        )
        return [*frames, *pixels]

    def to_tensors(self, outputs: Sequence[Any], plans: Sequence[Sequence[ViewPlan]]) -> Sequence[Tensor]:
        """Makes all views of the same frames by one kernel, see `ViewMaker.to_tensors`."""
        moments = outputs[: len(outputs) - len(plans)]  # Behind them comes a pixel of each view.
        shared = len(plans) // len(moments)
        return [
            view
            for number, frames in enumerate(moments)
            for view in self._views(frames, plans[number * shared : (number + 1) * shared])
        ]

    def _views(self, frames: Sequence[Any], plans: Sequence[Sequence[ViewPlan]]) -> Sequence[Tensor]:
        crops = [[(view.top, view.left, view.side, view.flip) for view in views] for views in plans]
        return augment(
            [torch.from_dlpack(clip) for clip in frames],
            torch.tensor(crops, dtype=torch.int32),
            torch.from_numpy(np.array([[view.color for view in views] for views in plans])),
            self.size,
        ).unbind()
