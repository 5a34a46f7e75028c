"""The loaders that people write today, tuned as well as they can be: what `cacl bench-loader` measures ours against.

Each of them is a torch DataLoader with one worker per core. They differ in how a worker decodes a clip, and in how it
makes views of it. All of them follow the same plans as the backends of `cacl.loaders`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import islice

import numpy as np
import torch
from PIL.Image import Image, Resampling, Transpose
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.functional import to_tensor

from cacl.clips import ClipBatch, ClipPlan, VideoRecord, ViewPlan
from cacl.config import AugmentConfig, Config
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.raw import open_video, select_video_stream

Load = Callable[[str, VideoRecord, ClipPlan, Config], tuple[Tensor, ...]]
"""Takes (file, record, plan, configuration), and returns one [3, T, H, W] per view; more may follow these."""
Decode = Callable[[str, VideoRecord, ClipPlan], Tensor]
"""Takes (file, record, plan of a single moment), and returns its frames: RGB uint8 [T, 3, H, W], channels last in
memory."""


def worker_count(config: Config) -> int:
    """The number of threads or worker processes of a loader."""
    return config.loader.threads or os.cpu_count() or 1


class DataLoaderBackend:
    """A DataLoader whose workers stay from call to call; torch gives each worker one thread."""

    def __init__(self, load: Load, catalog: Catalog, config: Config) -> None:
        self.plans: list[Sequence[ClipPlan]] = []
        self.loader = DataLoader(
            _ClipDataset(load, catalog, config),
            batch_sampler=self.plans,  # pyright: ignore[reportArgumentType]  # What it samples are plans, not numbers.
            num_workers=worker_count(config),
            prefetch_factor=config.loader.prefetch,
            persistent_workers=True,
        )

    def batches(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        """Yields one batch for each sequence of plans, in order."""
        self.plans[:] = plans
        for batch, views in zip(self.plans, self.loader, strict=True):
            yield ClipBatch(
                views=tuple(views),
                order=torch.tensor([plan.order for plan in batch], dtype=torch.uint8),
                video=torch.tensor([plan.video for plan in batch]),
                index=torch.tensor([plan.index for plan in batch]),
            )


class _ClipDataset(Dataset[tuple[Tensor, ...]]):
    def __init__(self, load: Load, catalog: Catalog, config: Config) -> None:
        self.load, self.catalog, self.config = load, catalog, config

    def __getitem__(self, plan: ClipPlan) -> tuple[Tensor, ...]:
        video = self.catalog.videos[plan.video]
        return self.load(str(self.catalog.location(video)), video, plan, self.config)


# --- Decoding ---


def pyav_frames(file: str, video: VideoRecord, plan: ClipPlan) -> Tensor:
    """Decodes from the nearest key frame to the last frame needed, and converts only the needed frames to RGB."""
    times, numbers = _frame_times(file), plan.frame_numbers
    with open_video(file) as container:
        stream = select_video_stream(container)
        if times:
            container.seek(times[plan.start], stream=stream)
            wanted = {times[number] for number in numbers}
            frames = (frame for frame in container.decode(stream) if frame.pts in wanted)
        else:
            frames = (frame for number, frame in enumerate(container.decode(stream)) if number in numbers)
        # By default PyAV has swscale start threads for each frame, which takes many times as long as the conversion.
        images = [frame.to_ndarray(format="rgb24", threads=1) for frame in islice(frames, plan.length)]
    return _channels_last(np.stack(images))


@cache
def _frame_times(file: str) -> list[int]:
    """The presentation time of every frame, in order of display; empty where the file cannot be trusted to tell them.

    AVI stores no such times, and what FFmpeg guesses where there are B-frames is wrong: in files like those of UCF101 a
    seek ends on another frame. Such files are decoded from their start. Each worker looks at a file once, in the
    warm-up.
    """
    with open_video(file) as container:
        stream = select_video_stream(container)
        times = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        guessed = container.format.name == "avi" and stream.codec_context.has_b_frames
    known = sorted(time for time in times if time is not None)
    return [] if guessed or len(set(known)) < len(times) else known


def torchcodec_frames(file: str, video: VideoRecord, plan: ClipPlan) -> Tensor:
    """Decodes with TorchCodec, which seeks by itself."""
    # "exact" looks through the whole file first. Prepared videos are of constant rate and do not need that.
    mode = "approximate" if video.fragments else "exact"
    decoder = import_module("torchcodec.decoders").VideoDecoder(
        file, seek_mode=mode, num_ffmpeg_threads=1, dimension_order="NCHW"
    )
    return decoder.get_frames_at(list(plan.frame_numbers)).data


def decord_frames(file: str, video: VideoRecord, plan: ClipPlan) -> Tensor:
    """Decodes with decord, which seeks by itself."""
    reader = import_module("decord").VideoReader(file, num_threads=1)
    return _channels_last(reader.get_batch(list(plan.frame_numbers)).asnumpy())


def _channels_last(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# --- Making views ---


def tuned_views(decode: Decode, file: str, video: VideoRecord, plan: ClipPlan, config: Config) -> tuple[Tensor, ...]:
    """Makes views of all frames at once, as bytes up to the colours, which are one matrix product.

    This is the fastest form that was found.

    Returns:
        One float16 [3, T, H, W] per view.
    """
    images = _cropped_views(decode, file, video, plan, config.clip.size)
    return tuple(_with_colors(view_images, view) for view_images, view in zip(images, plan.views, strict=True))


def color_jitter_views(
    decode: Decode, file: str, video: VideoRecord, plan: ClipPlan, config: Config
) -> tuple[Tensor, ...]:
    """Makes the same views with torchvision's ColorJitter and RandomGrayscale, which draw colours of their own.

    Returns:
        One float16 [3, T, H, W] per view, with the same colours for all frames of it.
    """
    jitter = _jitter(config.augment)
    views = map(jitter, _cropped_views(decode, file, video, plan, config.clip.size))
    return tuple(v2.functional.to_dtype(view, torch.float16, scale=True).transpose(0, 1) for view in views)


def official_release_views(file: str, video: VideoRecord, plan: ClipPlan, config: Config) -> tuple[Tensor, ...]:
    """Loads as the release of Guo et al. (CVPR 2022): the whole file to PIL images, these one by one to four stacks.

    The colours take less time than in the release, where they go through HSV: here Pillow applies the matrix.

    Returns:
        Four float32 [3, T, H, W]: both views of the clip, and both views of its shuffled copy.
    """
    with open_video(file) as container:
        images = [frame.to_image(threads=1) for frame in container.decode(select_video_stream(container))]
    views = [
        ([images[number] for number in moment.frame_numbers], view) for moment in plan.moments for view in moment.views
    ]
    shuffled = [([frames[position] for position in plan.order], view) for frames, view in views]
    return tuple(_stack(frames, view, config.clip.size) for frames, view in views + shuffled)


def _cropped_views(decode: Decode, file: str, video: VideoRecord, plan: ClipPlan, size: int) -> Iterator[Tensor]:
    """Decodes each moment of a clip, and yields its views without their colours: uint8 [T, 3, H, W]."""
    for moment in plan.moments:
        frames = decode(file, video, moment)
        yield from (_cropped(frames, view, size) for view in moment.views)


def _cropped(frames: Tensor, view: ViewPlan, size: int) -> Tensor:
    """Crops, resizes and flips to uint8 [T, 3, H, W]. Of bytes with the channels last, torchvision resizes fastest."""
    images = v2.functional.crop(frames, view.top, view.left, view.side, view.side)
    images = v2.functional.resize(images, [size, size], antialias=True)
    return v2.functional.horizontal_flip(images) if view.flip else images


def _with_colors(images: Tensor, view: ViewPlan) -> Tensor:
    """Applies the colours of a view to uint8 [T, 3, H, W], and returns float16 [3, T, H, W]."""
    planes = images.transpose(0, 1)
    matrix = torch.from_numpy(view.color)
    mixed = torch.addmm(matrix[:, 3:], matrix[:, :3] / 255, planes.reshape(3, -1).float())
    return mixed.half().view(planes.shape)


def _jitter(augment: AugmentConfig) -> Callable[[Tensor], Tensor]:
    colors = v2.ColorJitter(augment.brightness, augment.contrast, augment.saturation, augment.hue)
    return v2.Compose([v2.RandomApply([colors], augment.color_jitter_prob), v2.RandomGrayscale(augment.grayscale_prob)])


def _stack(images: Iterable[Image], view: ViewPlan, size: int) -> Tensor:
    """Makes a view of PIL images: float32 [3, T, H, W]."""
    box = (view.left, view.top, view.left + view.side, view.top + view.side)
    matrix = tuple((view.color * [1, 1, 1, 255]).ravel().tolist())
    frames = []
    for image in images:
        image = image.crop(box).resize((size, size), Resampling.BILINEAR)
        image = image.transpose(Transpose.FLIP_LEFT_RIGHT) if view.flip else image
        frames.append(to_tensor(image.convert("RGB", matrix)))
    return torch.stack(frames, dim=1)
