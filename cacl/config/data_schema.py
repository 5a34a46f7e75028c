"""The sections of a configuration that say which clips there are and how they are loaded.

As in `schema`, each is a frozen dataclass with the meaning of every key beside it.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cacl.config.bounds import AboveZero, Count, Positive, Share
from cacl.config.names import NameOf
from cacl.config.section import section
from cacl.registry import BACKENDS, BATCH_TRANSFORMS, LAYOUTS

Layout = Annotated[str, NameOf(LAYOUTS, "auto")]


def _backend_name(value: object) -> object:
    return "cpu" if value == "host" else value


@section
class RootConfig:
    """One of several roots, written as `[[data.roots]]` once for each of them."""

    root: str = ""
    """The folder of videos, the list of them, or the folder or address of a prepared set, as in `data.root`."""
    layout: Layout = "auto"
    """How this root tells labels and splits, as in `data.layout`."""
    fold: Positive = 1
    """The number of the official train/test division of this root."""
    test_share: Share = 0.0
    """The share of each class of this root that is held out as test, as in `data.test_share`."""
    weight: AboveZero = 1.0
    """How many times an epoch visits each training video of this root. With 1 for all roots it visits every video once,
    as over a single root. 2 visits those of this root twice, for another clip each time, and 0.5 visits half of them
    and the other half in the next epoch. So the share of the clips that come from a root is in proportion to its weight
    times the number of its training videos, rounded to whole clips."""


@section
class DataConfig:
    """Which videos there are."""

    root: str = ""
    """The folder of videos, a CSV or text file that lists them with a video on each line, or the folder or address of a
    prepared set."""
    layout: Layout = "auto"
    """How the folder tells labels and splits. `auto` recognises lists, folders of splits and folders of classes."""
    fold: Positive = 1
    """The number of the official train/test division, of which UCF101 and HMDB51 have three."""
    test_share: Share = 0.0
    """The share of each class that is held out as test where no list says which videos are. It is drawn from the names
    of the videos, so that it stays the same."""
    max_rejected_share: Share = 0.1
    """The run stops when more than this share of the videos found cannot be used, of any root where there are
    several."""
    cache: str = ""
    """The folder for scan results. An empty string stands for the user's cache folder."""
    roots: tuple[RootConfig, ...] = ()
    """Several roots in place of the one in `data.root`, each with its layout and weight: one `[[data.roots]]` for each,
    or `[{root = "a"}, {root = "b", weight = 2}]`."""

    def each_root(self) -> tuple[DataConfig, ...]:
        """Returns what the entries of `roots` say, each as the only root of a data set."""
        return tuple(
            dataclasses.replace(
                self, root=root.root, layout=root.layout, fold=root.fold, test_share=root.test_share, roots=()
            )
            for root in self.roots
        )


@section
class ClipConfig:
    """How long and how large a clip is."""

    frames: Annotated[int, Field(ge=2, le=255, strict=True)] = 16
    """T, the number of frames in a clip."""
    stride: Positive = 2
    """The number of frames of the video from one frame of the clip to the next. Shorter videos take the largest stride
    that fits."""
    min_remaining_frames: Count = 0
    """A training clip starts only where at least this many frames of the video are left, and videos with fewer frames
    are left out. 0 asks for as many as the clip spans and keeps shorter videos (see `stride`). The published value is
    46, for a span of 31."""
    max_frames_apart: Count = 0
    """The most frames between the starts of the query's and the key's clip; any start of the key so near is as likely
    as any other. 0 is published: both show the same frames. The length of the longest video makes them independent."""
    size: Annotated[int, Field(ge=16, strict=True)] = 112
    """The height and the width of a view, in pixels."""

    @property
    def span(self) -> int:
        """The number of frames of the video from the first to the last frame of a clip, both included."""
        return (self.frames - 1) * self.stride + 1

    @property
    def min_frames(self) -> int:
        """The least number of frames that a training video may have."""
        return max(self.frames, self.min_remaining_frames)


@section
class AugmentConfig:
    """How the two views of a clip differ."""

    resize: tuple[Count, Count] = (0, 0)
    """The height and the width that the whole frame is resized to before the crop, whatever its aspect ratio, in 8 bits
    as Pillow does it. [0, 0] keeps the frame as it is. The published value is [128, 171], which shows more of the width
    of a wide video. The `dali` backend cannot resize."""
    crop: tuple[AboveZero, AboveZero] = (0.875, 0.875)
    """The least and the greatest side of the square crop, as a share of the short side of the frame; the side is drawn
    between the two. The published value is 112/128 for both."""
    flip_prob: Share = 0.5
    """The probability of mirroring left and right."""
    brightness: Share = 0.4
    """The strength b of the change of brightness, which is multiplied by a factor between 1 - b and 1 + b."""
    contrast: Share = 0.4
    """The strength of the change of contrast, with the same bounds of the factor."""
    saturation: Share = 0.4
    """The strength of the change of saturation, with the same bounds of the factor."""
    hue: Annotated[float, Field(ge=0, le=0.5, strict=True)] = 0.1
    """The largest change of hue in either direction, in turns of the colour circle."""
    color_jitter_prob: Share = 0.8
    """The probability that the four changes of colour above are applied."""
    grayscale_prob: Share = 0.2
    """The probability of dropping the colour."""
    color_arithmetic: Literal["linear", "pillow"] = "linear"
    """How the changes of colour are computed. `linear` composes them into one matrix: they come in the order above, the
    contrast changes about mid-grey, and nothing is clamped. `pillow` is the published form: they come in random order,
    in 8 bits and clamped after each, the contrast changes about the mean grey of each frame, and the hue in HSV. The
    `dali` backend only has `linear`."""
    batch_transforms: tuple[Annotated[str, NameOf(BATCH_TRANSFORMS)], ...] = ()
    """Further augmentations by name, in their order, which other packages register. They change whole batches on the
    device, after everything above."""


@section
class LoaderConfig:
    """How clips are decoded."""

    backend: Annotated[str, NameOf(BACKENDS, "auto"), BeforeValidator(_backend_name)] = "auto"
    """What decodes and augments the clips: `dali` does so on the GPU, `cpu` on the CPU, and `reference` is the slow,
    readable form. `host` is another name of `cpu`. `auto` takes `dali` where it can run, shows the frames that `cpu`
    shows, and is faster, which it tries on the first clips; elsewhere it takes `cpu`."""
    threads: Count = 0
    """The number of decoding threads per process. 0 shares the cores of the machine among its processes, with at least
    16 threads for a remote set."""
    prefetch: Positive = 3
    """The number of batches that are decoded ahead of the training step."""
    dali_pipelines: Positive = 2
    """The number of pipelines of `dali` that take turns. A single one does not keep all decoders of a GPU busy."""
    dali_views: Literal["dali", "triton"] = "dali"
    """What makes the views of the decoded frames in the `dali` backend: DALI's operators, or a single kernel of this
    project. Other backends ignore this key. Neither way has been timed on a GPU yet."""
    on_failure: Literal["skip", "fail"] = "skip"
    """What happens when a file fails that was in order before the training: `skip` leaves its clip out, names it and
    counts it, and `fail` stops the run."""
