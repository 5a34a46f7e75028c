"""The views of the recipe against those of the release, bit for bit, and the arithmetic of Pillow."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cacl.clips import ClipPlan, VideoRecord, ViewPlan
from cacl.loaders.backends import cpu, reference
from cacl.loaders.backends.pillow_ops import apply_color_steps
from cacl.loaders.backends.thread_pool import LoadClip
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR
from cacl.loaders.sampling.sampler import ClipSampler, evaluation_plans
from tests.official import release
from tests.official.second_implementation import (
    jitter_of,
    recipe,
)


def loaded(load_clip: LoadClip, video: VideoRecord, plan: ClipPlan, size: int) -> Tensor:
    out = torch.full((len(plan.views), 3, plan.length, size, size), torch.nan, dtype=torch.float16)
    load_clip(Path(video.path), video, plan, size, tuple(out))
    return out


@pytest.mark.parametrize("load_clip", [reference.load_clip, cpu.load_clip], ids=["reference", "cpu"])
def test_views_are_those_of_the_release_bit_for_bit(film: tuple[VideoRecord, np.ndarray], load_clip: LoadClip) -> None:
    """Views are compared in half precision, in which they travel."""
    config, (video, pictures) = recipe("clip.frames=8"), film
    sampler = ClipSampler([video], config.clip, config.augment, seed=5)
    seen: Counter[str] = Counter()
    for index in range(12):
        plan = sampler.plan(index)
        for want, made in zip(plan.views, loaded(load_clip, video, plan, 112), strict=True):
            jitter, grey = jitter_of(want.pillow_steps)
            seen.update(name for name, _ in jitter)
            seen.update(grey=grey, flip=want.flip, plain=not jitter)
            frames = pictures[list(plan.frame_numbers)]
            true = release.view(frames, top=want.top, left=want.left, jitter=jitter, grey=grey, flip=want.flip)
            assert torch.equal(made, true.half()), (index, want)
    assert min(seen.values()) >= 2, seen
    assert len(seen) == 7


def test_the_centre_view_is_that_of_the_release(film: tuple[VideoRecord, np.ndarray]) -> None:
    config, (video, pictures) = recipe("clip.frames=8"), film
    (plan,) = evaluation_plans([video], [0], 1, config.clip, config.augment, "official")
    (made,) = loaded(cpu.load_clip, video, plan, 112)
    true = release.view(pictures[list(plan.frame_numbers)], top=8, left=30)  # (171 - 112) / 2 = 29.5, to even
    assert torch.equal(made, true.half())


def test_frames_may_be_resized_without_pillows_jitter(film: tuple[VideoRecord, np.ndarray]) -> None:
    """The colours of the default follow then, in which nothing is rounded or clamped."""
    config, (video, pictures) = recipe("clip.frames=8", "augment.color_arithmetic=linear"), film
    plan = ClipSampler([video], config.clip, config.augment, seed=1).plan(0)
    for want, made in zip(plan.views, loaded(cpu.load_clip, video, plan, 112), strict=True):
        frames = pictures[list(plan.frame_numbers)]
        plain = release.view(frames, top=want.top, left=want.left, flip=want.flip).double()
        color = torch.from_numpy(want.color).double()
        true = torch.einsum("rc,cthw->rthw", color[:, :3], plain) + color[:, 3, None, None, None]
        torch.testing.assert_close(made.double(), true, rtol=2**-11, atol=1e-6)


def test_pillows_jitter_may_follow_a_crop_of_the_frame_as_it_is(film: tuple[VideoRecord, np.ndarray]) -> None:
    config, (video, pictures) = recipe("clip.frames=8", "augment.resize=[0, 0]", "clip.size=104"), film
    sampler = ClipSampler([video], config.clip, config.augment, seed=1)
    plan = next(plan for plan in map(sampler.plan, range(20)) if plan.views[0].pillow_steps)
    want, made = plan.views[0], loaded(cpu.load_clip, video, plan, 104)[0]
    assert want.side == 104  # of 120: nothing is resized
    jitter, grey = jitter_of(want.pillow_steps)
    frames, crop = pictures[list(plan.frame_numbers)], {"top": want.top, "left": want.left, "size": 104}
    true = release.view(frames, resize=(120, 214), **crop, jitter=jitter, grey=grey, flip=want.flip)
    assert torch.equal(made, true.half())


def test_pillow_is_given_rounded_values() -> None:
    """The values are not of 8 bits any more where the crop was made smaller."""
    frames = torch.randint(0, 256, (2, 3, 50, 60), dtype=torch.uint8)
    plan = ViewPlan(top=2, left=6, side=40, flip=False, color=IDENTITY_COLOR, pillow_steps=(("brightness", 1.2),))
    small_crop = reference.make_view(frames, replace(plan, pillow_steps=()), 27).permute(1, 2, 3, 0).numpy()
    for image, made in zip(np.rint(small_crop * 255), reference.make_view(frames, plan, 27).unbind(1), strict=True):
        true = np.array(release.adjusted(Image.fromarray(image.astype(np.uint8)), "brightness", 1.2))
        assert np.array_equal((made.permute(1, 2, 0) * 255).round().numpy(), true)


def test_contrast_is_about_the_grey_of_each_frame(film: tuple[VideoRecord, np.ndarray]) -> None:
    """x -> m + c (x - m) holds within one step of 8 bits, where m is the mean of .299 R + .587 G + .114 B."""
    frames = film[1][[0, 31]] // 2 + np.array([[0], [90]], np.uint8)[..., None, None]  # a dark and a bright one
    for factor in (0.6, 1.4):
        for frame, made in zip(frames, apply_color_steps(frames, [("contrast", factor)]), strict=True):
            mean = (frame @ [0.299, 0.587, 0.114]).mean()
            true = np.clip(mean + factor * (frame - mean), 0, 255)
            assert np.abs(made - true).max() <= 1.5
