"""Which clip is taken, as pure functions of (seed, epoch, video): nothing here depends on ranks, threads or backends.

Training samples form one endless stream: sample number i is position i % n of epoch i // n. Each epoch visits each of
the n videos once, in its own order; a batch is a stretch of the stream and may straddle two epochs, so none is ever
short and none is dropped. The number of the next sample is the whole state of the data.

Where videos come from several roots with weights, the n samples of an epoch are n slots: each root has its own ones, as
many as its share says, and fills them with whole rounds over its videos. Slots that are left over go to a part of its
videos, the next part in the next epoch. An epoch visits its slots in an order of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Literal

import numpy as np

from cacl.clips import ClipPlan, RootShare, VideoRecord, ViewPlan
from cacl.config import AugmentConfig, ClipConfig
from cacl.loaders.sampling.augmentation import center_crop_view, draw_view, three_crop_views
from cacl.loaders.sampling.rng import RandomStream

(
    EPOCH_ORDER_STREAM,
    CLIP_STREAM,
    TRAINING_STEP_STREAM,
    BATCH_TRANSFORM_STREAM,
    ROUND_ORDER_STREAM,
    VIEW_START_STREAM,
) = range(6)
"""What a stream of random numbers is for. It is the second value of the stream's key, behind the seed, so that streams
for different purposes never share a number."""


class ClipSampler:
    """Plans the endless stream of training samples over a list of videos.

    A plan depends on nothing but these arguments and the number of the sample.

    Args:
        videos: The videos, each long enough for a clip.
        clip: The length and the stride of a clip, and how far apart in time its views may start.
        augment: The random views.
        seed: The seed of the run.
        views: The number of views of a clip. The first ones are the same whatever their number.
        shares: The share of each root, in the order of its videos among all. None: an epoch takes one clip of each
            video.
    """

    def __init__(
        self,
        videos: Sequence[VideoRecord],
        clip: ClipConfig,
        augment: AugmentConfig,
        seed: int,
        views: int = 2,
        shares: Sequence[RootShare] | None = None,
    ) -> None:
        self.videos, self.clip, self.augment, self.seed, self.views = videos, clip, augment, seed, views
        self.shares = shares or (RootShare(len(videos), len(videos)),)
        assert sum(share.videos for share in self.shares) == len(videos), "each video belongs to one root"
        # Two epochs, which a batch may straddle, take of at most three rounds of a root.
        self._round_order = lru_cache(maxsize=3 * len(self.shares))(partial(round_order, seed))

    @property
    def clips_per_epoch(self) -> int:
        """The number of samples of an epoch."""
        return sum(share.clips for share in self.shares)

    def plan(self, index: int) -> ClipPlan:
        """Plans one sample.

        Args:
            index: The number of the sample in the stream.

        Returns:
            The plan, with its views; the first two are the query and the key.
        """
        epoch, position = divmod(index, self.clips_per_epoch)
        slot = epoch_order(self.seed, epoch, self.clips_per_epoch)[position]
        number = self._video_in_slot(epoch, slot)
        video = self.videos[number]
        rng = RandomStream(self.seed, CLIP_STREAM, epoch, slot)
        stride = fitting_stride(video, self.clip)
        last_start = video.frames - max(_span(self.clip.frames, stride), self.clip.min_remaining_frames)
        start = rng.integer(0, last_start + 1)
        return ClipPlan(
            index=index,
            video=number,
            start=start,
            stride=stride,
            length=self.clip.frames,
            order=draw_frame_order(rng, self.clip.frames),
            views=tuple(draw_view(rng, video, self.augment) for _ in range(self.views)),
            resize=_resize(self.augment),
            view_starts=self._draw_view_starts(start, last_start, epoch, slot),
        )

    def _draw_view_starts(self, start: int, last_start: int, epoch: int, slot: int) -> tuple[int, ...]:
        """Draws where each view starts, the first one at `start`. The result is empty where all start there.

        The numbers come from a stream of their own: everything else about a sample stays what it is without them.
        """
        distance = self.clip.max_frames_apart
        if not distance:
            return ()
        rng = RandomStream(self.seed, VIEW_START_STREAM, epoch, slot)
        first, last = max(0, start - distance), min(last_start, start + distance)
        return (start, *(rng.integer(first, last + 1) for _ in range(self.views - 1)))

    def _video_in_slot(self, epoch: int, slot: int) -> int:
        """Returns the position of the video that an epoch visits in one of its slots."""
        first_slot = first_video = 0
        for root, (videos, clips) in enumerate(self.shares):
            if slot < first_slot + clips:
                return first_video + self._video_of_root(root, epoch, slot - first_slot)
            first_slot, first_video = first_slot + clips, first_video + videos
        raise AssertionError(f"an epoch has {first_slot} slots, and none has the number {slot}")

    def _video_of_root(self, root: int, epoch: int, slot: int) -> int:
        """Returns the position, among the videos of a root, of the one that is visited in one of its own slots."""
        videos, clips = self.shares[root]
        left_over = clips % videos
        whole_rounds = clips - left_over
        if slot < whole_rounds:
            return slot % videos
        number, position = divmod(epoch * left_over + slot - whole_rounds, videos)
        return self._round_order(root, number, videos)[position]

    def batches(
        self, start: int, stop: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[list[ClipPlan]]:
        """Plans the share of one rank in each batch.

        Args:
            start: The first training step.
            stop: One more than the last training step.
            batch_size: The number of samples in a batch over all ranks.
            rank: The number of this rank.
            world_size: The number of ranks.

        Yields:
            For each step the plans of this rank, batch_size / world_size of them.
        """
        return self.stretch(start * batch_size, stop * batch_size, batch_size, rank, world_size)

    def stretch(
        self, first: int, stop: int | None, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[list[ClipPlan]]:
        """Plans the share of one rank in each batch of a stretch of the stream.

        Args:
            first: The number of the first sample.
            stop: One more than the number of the last sample; None never ends.
            batch_size: The number of samples in a batch over all ranks. The last batch takes what is left.
            rank: The number of this rank.
            world_size: The number of ranks.

        Yields:
            The plans of this rank, from each batch as many as from that of any other rank, or one more or less. Batches
            in which it has no share are left out.
        """
        while stop is None or first < stop:
            size = batch_size if stop is None else min(batch_size, stop - first)
            begin, end = (size * number // world_size for number in (rank, rank + 1))
            if begin < end:
                yield [self.plan(index) for index in range(first + begin, first + end)]
            first += batch_size


def evaluation_plans(
    videos: Sequence[VideoRecord],
    numbers: Sequence[int],
    clips_per_video: int,
    clip: ClipConfig,
    augment: AugmentConfig,
    starts: Literal["span", "official"] = "span",
    crops: Literal[1, 3] = 1,
) -> Iterator[ClipPlan]:
    """Plans evenly spaced clips of each video, seen in the centre crop or in three crops.

    Args:
        videos: All videos.
        numbers: The positions of the wanted videos among them.
        clips_per_video: The number of clips of each video.
        clip: The length and the stride of a clip.
        augment: The largest crop, and the size that frames are resized to.
        starts: Which clips are evenly spaced, as in RetrievalConfig.clip_starts.
        crops: 1 for the centre crop, 3 for those of `three_crop_views`.

    Yields:
        The plans of the first wanted video, then those of the next, each with as many views as there are crops.
    """
    spaced = official_starts if starts == "official" else evenly_spaced_starts
    for number in numbers:
        video = videos[number]
        stride, chosen = spaced(video, clip, clips_per_video)
        views = three_crop_views(video, augment) if crops == 3 else (center_crop_view(video, augment),)
        for which, start in enumerate(chosen):
            index = number * clips_per_video + which
            yield _plan_in_own_colors(index, number, start, stride, views, clip, augment)


def plans_at(
    videos: Sequence[VideoRecord],
    starts: Iterable[tuple[int, Sequence[int]]],
    clip: ClipConfig,
    augment: AugmentConfig,
) -> Iterator[ClipPlan]:
    """Plans clips of videos at given starts, seen in the centre crop.

    Args:
        videos: All videos.
        starts: The position of each wanted video among them, with the first frames of its clips.
        clip: The length and the stride of a clip.
        augment: The largest crop, and the size that frames are resized to.

    Yields:
        The plans of the first wanted video, then those of the next. Their indices count from 0.
    """
    for index, (number, start) in enumerate((number, start) for number, own in starts for start in own):
        stride, views = fitting_stride(videos[number], clip), (center_crop_view(videos[number], augment),)
        yield _plan_in_own_colors(index, number, start, stride, views, clip, augment)


def consecutive_starts(
    video: VideoRecord, clip: ClipConfig, distance: int | None = None, stretch: tuple[int, int] | None = None
) -> list[int]:
    """Cuts a video, or a stretch of it, into clips that follow one another.

    What is left at the end has a clip that ends there, and overlaps the one before, if it is at least half as long as
    the distance. A stretch that is shorter than a clip has one around its middle.

    Args:
        video: The record of the video.
        clip: The length and the stride of a clip.
        distance: The number of frames of the video from the start of a clip to that of the next. None: as many as the
            clip takes, so that they do not overlap.
        stretch: The first frame of the stretch, and the frame behind its last. None: the whole video.

    Returns:
        The first frame of each clip, rising.
    """
    stride = fitting_stride(video, clip)
    distance = distance or clip.frames * stride
    first, stop = stretch or (0, video.frames)
    span = _span(clip.frames, stride)
    if stop - first < span:
        return [min(max(0, (first + stop - span) // 2), video.frames - span)]
    starts = list(range(first, stop - span + 1, distance))
    return [*starts, stop - span] if 2 * (stop - span - starts[-1]) >= distance else starts


def _plan_in_own_colors(
    index: int,
    number: int,
    start: int,
    stride: int,
    views: tuple[ViewPlan, ...],
    clip: ClipConfig,
    augment: AugmentConfig,
) -> ClipPlan:
    """Plans a clip of an evaluation, whose frames stay in their order."""
    return ClipPlan(
        index=index,
        video=number,
        start=start,
        stride=stride,
        length=clip.frames,
        order=tuple(range(clip.frames)),
        views=views,
        resize=_resize(augment),
    )


def evenly_spaced_starts(video: VideoRecord, clip: ClipConfig, count: int) -> tuple[int, list[int]]:
    """Spaces evaluation clips evenly from the first frame to the last; a single one is in the middle.

    Args:
        video: The record of the video.
        clip: The length and the stride of a clip.
        count: The number of clips.

    Returns:
        The stride and the first frame of each clip.
    """
    stride = fitting_stride(video, clip)
    last = video.frames - _span(clip.frames, stride)
    return stride, [round(last * which / (count - 1)) for which in range(count)] if count > 1 else [last // 2]


def official_starts(video: VideoRecord, clip: ClipConfig, count: int) -> tuple[int, list[int]]:
    """Spaces evaluation clips as the release of Guo et al. (CVPR 2022) does.

    Args:
        video: The record of the video.
        clip: The length and the stride of a clip.
        count: The number of clips.

    Returns:
        The stride and the first frame of each clip.
    """
    last = max(0, video.frames - clip.frames * clip.stride)
    starts = [int(start) for start in np.linspace(0, last, count)]
    return clip.stride if video.frames >= clip.span else 1, starts


def fitting_stride(video: VideoRecord, clip: ClipConfig) -> int:
    """Returns the stride of clips of a video, in frames.

    In a short video the stride shrinks to what fits, and frames are never repeated: that would make the frame order
    ambiguous. The scan rejects videos with fewer frames than a clip.

    Args:
        video: The record of the video.
        clip: The length and the stride of a clip.
    """
    assert video.frames >= clip.frames, f"{video.path} should not have passed the scan"
    return min(clip.stride, (video.frames - 1) // (clip.frames - 1))


def draw_frame_order(rng: RandomStream, length: int) -> tuple[int, ...]:
    """Draws the frame order of a shuffled copy, as in the release of Guo et al. (CVPR 2022).

    n ~ U{1..T} positions are chosen and permuted among themselves, fixed points allowed. n = 1 leaves the clip alone.

    Args:
        rng: The random numbers.
        length: T, the number of frames of a clip.

    Returns:
        For each position of the copy, the position of its frame in the clip.
    """
    chosen = sorted(rng.permutation(length)[: rng.integer(1, length + 1)])
    order = list(range(length))
    for position, source in zip(chosen, rng.permutation(len(chosen)), strict=True):
        order[position] = chosen[source]
    return tuple(order)


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def epoch_order(seed: int, epoch: int, slots: int) -> list[int]:
    """Draws the order in which an epoch visits its slots, which are the videos where each has one.

    Args:
        seed: The seed of the run.
        epoch: The number of the epoch.
        slots: The number of slots.

    Returns:
        The numbers of all slots, in the order of the epoch. It is kept, and must not be changed.
    """
    return RandomStream(seed, EPOCH_ORDER_STREAM, epoch).permutation(slots)


def round_order(seed: int, root: int, number: int, videos: int) -> list[int]:
    """Draws the order of a round that several epochs make together, each with a part of the videos of a root.

    Args:
        seed: The seed of the run.
        root: The number of the root.
        number: The number of the round.
        videos: The number of videos of the root.

    Returns:
        The positions of the videos among those of the root, in the order of the round.
    """
    return RandomStream(seed, ROUND_ORDER_STREAM, root, number).permutation(videos)


def _resize(augment: AugmentConfig) -> tuple[int, int] | None:
    return augment.resize if any(augment.resize) else None


def _span(frames: int, stride: int) -> int:
    """Returns the number of video frames from the first frame of a clip to its last, both included."""
    return (frames - 1) * stride + 1
