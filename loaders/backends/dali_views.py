"""What makes views of decoded frames in the `dali` backend: DALI's operators in its graph, or our kernel behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cacl.clips import ViewPlan
from cacl.kernels.augment import augment

Node: TypeAlias = Any
"""A DataNode; the stubs of DALI say less about what its operators take and return than would help."""


class Views(Protocol):
    """A batch has V views of each of B clips."""

    columns: int
    """How many inputs of the graph describe one view."""

    def inputs(self, plans: Sequence[ViewPlan]) -> list[np.ndarray]:
        """These inputs for one view of each clip, a row for every clip."""
        ...

    def outputs(self, frames: Node, inputs: Sequence[Node]) -> list[Node]:
        """The end of the graph. frames: uint8 RGB, FHWC, of any size; inputs: of the first view, of the second, ..."""
        ...

    def tensors(self, outputs: Sequence[Any], plans: Sequence[Sequence[ViewPlan]]) -> Sequence[Tensor]:
        """V of float16 [B, 3, T, size, size], in memory of torch. outputs: what the graph made, read on torch's current
        stream; plans: V of B."""
        ...


PER_LEVEL = np.array([1 / 255, 1 / 255, 1 / 255, 1], np.float32)
"""Turns the colour matrix of a view, which is for RGB in [0, 1], into one for RGB in 0..255."""


class DaliViews:
    """Views made by the graph, ahead of time."""

    columns = 4

    def __init__(self, size: int) -> None:
        self.size = size

    def inputs(self, plans: Sequence[ViewPlan]) -> list[np.ndarray]:
        """int32 [B, 2] twice, float32 [B, 3, 4], int32 [B]."""
        return [
            np.array([(view.top, view.left) for view in plans], np.int32),
            np.array([(view.side, view.side) for view in plans], np.int32),
            np.stack([view.color * PER_LEVEL for view in plans]),
            np.array([view.flip for view in plans], np.int32),
        ]

    def outputs(self, frames: Node, inputs: Sequence[Node]) -> list[Node]:
        return [self._view(frames, *inputs[at : at + self.columns]) for at in range(0, len(inputs), self.columns)]

    def _view(self, frames: Node, start: Node, shape: Node, color: Node, mirror: Node) -> Node:
        from nvidia.dali import fn, types

        # Cropped first: resizing a region of interest would let pixels from outside of it leak in at its edges.
        view: Node = fn.slice(frames, start=start, shape=shape, axis_names="HW")
        view = fn.resize(view, size=[self.size, self.size], antialias=True, dtype=types.DALIDataType.FLOAT)
        view = fn.coord_transform(view, MT=color)
        return fn.crop_mirror_normalize(view, mirror=mirror, dtype=types.DALIDataType.FLOAT16, output_layout="CFHW")

    def tensors(self, outputs: Sequence[Any], plans: Sequence[Sequence[ViewPlan]]) -> Sequence[Tensor]:
        return [torch.from_dlpack(output.as_tensor()).clone() for output in outputs]


class KernelViews:
    """Views made from the frames of the graph when they are asked for, on torch's current stream."""

    columns = 1

    def __init__(self, size: int) -> None:
        self.size = size

    def inputs(self, plans: Sequence[ViewPlan]) -> list[np.ndarray]:
        """int32 [B, 2]: the last row and column of the view."""
        return [np.array([(view.top + view.side - 1, view.left + view.side - 1) for view in plans], np.int32)]

    def outputs(self, frames: Node, inputs: Sequence[Node]) -> list[Node]:
        from nvidia.dali import fn

        # These pixels serve nothing but that the graph dies of frames that are smaller than they were when the video
        # was scanned, as it does when it crops them itself.
        return [frames, *(fn.slice(frames, start=last, shape=[1, 1], axis_names="HW") for last in inputs)]

    def tensors(self, outputs: Sequence[Any], plans: Sequence[Sequence[ViewPlan]]) -> Sequence[Tensor]:
        crops = [[(view.top, view.left, view.side, view.flip) for view in views] for views in plans]
        return augment(
            [torch.from_dlpack(frames) for frames in outputs[0]],
            torch.tensor(crops, dtype=torch.int32),
            torch.from_numpy(np.array([[view.color for view in views] for views in plans])),
            self.size,
        ).unbind()
