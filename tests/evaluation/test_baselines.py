"""The baselines against numpy, and what each of them can tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cacl.clips import VideoRecord
from cacl.evaluation.baselines import frame_difference, mean_frame, size_and_length


def cells(pictures: np.ndarray) -> np.ndarray:
    """The means over a grid of 16 x 16 cells, whose edges are rounded outwards to whole pixels, flattened."""
    height, width = pictures.shape[-2:]
    out = np.empty((*pictures.shape[:-2], 16, 16))
    for i, j in np.ndindex(16, 16):
        rows = slice(i * height // 16, -(-(i + 1) * height // 16))
        columns = slice(j * width // 16, -(-(j + 1) * width // 16))
        out[..., i, j] = pictures[..., rows, columns].mean((-2, -1))
    return out.reshape(len(out), -1)


@pytest.mark.parametrize("size", [(16, 16), (64, 32), (50, 37), (8, 20)])
def test_pixel_baselines_against_numpy(size: tuple[int, int]) -> None:
    clips = torch.rand(3, 3, 5, *size, generator=torch.Generator().manual_seed(0))
    order = torch.arange(5).expand(3, 5)
    x = clips.double().numpy()
    mean, difference = mean_frame(clips, order), frame_difference(clips, order)
    assert mean.shape == difference.shape == (3, 3 * 16 * 16)
    np.testing.assert_allclose(mean.numpy(), cells(x.mean(2)), rtol=0, atol=1e-6)
    changes = np.mean([np.abs(x[:, :, t + 1] - x[:, :, t]) for t in range(4)], axis=0)
    np.testing.assert_allclose(difference.numpy(), cells(changes), rtol=0, atol=1e-6)


def test_pixel_baselines_see_what_they_are_named_for() -> None:
    still = torch.rand(2, 3, 1, 32, 32).expand(2, 3, 6, 32, 32)
    order = torch.arange(6).expand(2, 6)
    assert not frame_difference(still, order).any()
    torch.testing.assert_close(mean_frame(still, order), mean_frame(still[:, :, :2], order[:, :2]))


def video(frames: int) -> VideoRecord:
    return VideoRecord(path="a.mp4", frames=frames, declared_frames=8, rate=25.0, width=32, height=24, codec="h264")


def test_the_baseline_of_size_and_length_tells_near_from_far() -> None:
    """The videos are of one size, so that only their lengths differ: the nearer the lengths, the more alike the videos.

    Without the constant there would be one number left, whose cosine is 1 or -1 and nothing between.
    """
    lengths = [10, 12, 15, 20, 30, 60, 61, 200]
    values = size_and_length([video(length) for length in lengths])
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    similarity = values @ values.T
    assert (np.diff(similarity[-1]) > 0).all()
    assert (np.diff(similarity[0]) < 0).all()
