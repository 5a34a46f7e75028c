"""The one way from videos to batches: `cacl.ClipLoader`, which works in any training loop."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from cacl import distributed
from cacl.clips import ClipBatch, ClipPlan, to_device
from cacl.config import Config, from_dict
from cacl.errors import CheckpointError, ConfigError
from cacl.loaders.backends import trial
from cacl.loaders.backends.select import Backend, Choice, build_backend, choose_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import BATCH_TRANSFORM_STREAM, ClipSampler, evaluation_plans, plans_at
from cacl.registry import BATCH_TRANSFORMS

log = logging.getLogger(__name__)


class ClipLoader:
    """Batches of augmented clips, straight from video files.

    It goes into any training loop::

        loader = cacl.ClipLoader("path/to/videos", frames=16, size=112, batch_size=64)
        for batch in loader:
            batch.views[0]  # float16 [B, 3, T, H, W], RGB in about [0, 1]

    Iterating over the loader itself never ends: it goes through epoch after epoch from where it is, and a batch may
    straddle two of them. `epoch` is one pass over the training clips, `evaluation` one over evenly spaced clips. A
    clip that cannot be loaded has no row in its batch, and is named in `batch.failures`.

    Which clips come, and how they look, is decided by the videos, the seed and the settings of clips and augmentation.
    It depends neither on the ranks nor on the threads nor on the size of a batch.
    """

    catalog: Catalog
    """The videos that clips are taken of. `batch.video` holds positions in `catalog.videos`."""
    classes: tuple[str, ...]
    """The names of the classes, among which `batch.labels` holds positions. They are those of the whole data set,
    whatever the split."""
    choice: Choice
    """The backend that makes the batches, and why it was chosen."""

    def __init__(
        self,
        root: str | Path,
        *,
        frames: int = 16,
        stride: int = 2,
        size: int = 112,
        batch_size: int = 64,
        views: int = 2,
        max_frames_apart: int = 0,
        split: str | None = "train",
        labels: str | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        backend: str = "auto",
        device: str | torch.device = "cpu",
    ) -> None:
        """Scans the videos, or opens the index of a prepared set. Whatever is not an argument has its default value.

        Args:
            root: The folder of videos, a list of them, or a prepared set: a folder or a URL.
            frames: T, the number of frames in a clip.
            stride: The number of frames of the video from one frame of the clip to the next.
            size: The height and the width of a view, in pixels.
            batch_size: The number of clips in a batch over all ranks, which divide it among them.
            views: The number of augmented views of each clip.
            max_frames_apart: How far in time any other view may start from the first one, in frames of the video. With
                0, all views show the same frames.
            split: `train`, `val` or `test`; None takes all videos. Where nothing tells splits, all videos are `train`.
            labels: What `batch.labels` holds: `label`, the class of a video, or another column of the lists of the data
                set. None: nothing.
            seed: The seed of the order of the videos, the clips and the augmentation.
            rank: The number of this process, from 0 to `world_size - 1`.
            world_size: The number of processes that share the batches.
            backend: What decodes and augments: `cpu`, `dali`, `reference`, or `auto`.
            device: Where the backend `dali` makes the views, and where `augment.batch_transforms` run. All else is made
                on the CPU.

        Raises:
            ConfigError: An argument is out of bounds, or the backend cannot run here.
            DataError: The videos cannot be read, or the split or a label is missing.
        """
        config = from_dict(
            {
                "seed": seed,
                "data": {"root": str(root)},
                "clip": {"frames": frames, "stride": stride, "size": size, "max_frames_apart": max_frames_apart},
                "loader": {"backend": backend},
            }
        )
        self._set_up(config, None, batch_size, views, split, labels, rank, world_size, torch.device(device))

    @classmethod
    def from_config(
        cls,
        config: Config,
        *,
        catalog: Catalog | None = None,
        batch_size: int | None = None,
        views: int = 2,
        split: str | None = "train",
        labels: str | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: str | torch.device = "cpu",
    ) -> ClipLoader:
        """Makes a loader with the settings of a configuration: `data`, `clip`, `augment`, `loader` and `seed`.

        Args:
            config: The configuration.
            catalog: The videos, where they have been scanned before; None scans `data.root` or `data.roots`.
            batch_size: As for the loader itself; None takes `train.batch_size`.
            views: As for the loader itself, like everything that follows.
            split: `train`, `val`, `test` or None.
            labels: `label`, another column, or None.
            rank: The number of this process.
            world_size: The number of processes.
            device: As for the loader itself.

        Returns:
            The loader.

        Raises:
            ConfigError: An argument is out of bounds, or the backend cannot run here.
            DataError: The videos cannot be read, or the split or a label is missing.
        """
        loader = cls.__new__(cls)
        size = config.train.batch_size if batch_size is None else batch_size
        loader._set_up(config, catalog, size, views, split, labels, rank, world_size, torch.device(device))
        return loader

    def _set_up(
        self,
        config: Config,
        catalog: Catalog | None,
        batch_size: int,
        views: int,
        split: str | None,
        labels: str | None,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank = {rank}: with world_size = {world_size} it must be from 0 to {world_size - 1}")
        if batch_size < world_size:
            raise ConfigError(
                f"batch_size = {batch_size}: each of the world_size = {world_size} processes needs at least one clip"
            )
        if views < 1:
            raise ConfigError(f"views = {views}: a clip needs at least one view")
        self.config, self.batch_size, self.views = config, batch_size, views
        self.rank, self.world_size, self.device = rank, world_size, device
        choice = choose_backend(config.loader, device)
        whole = _scan(config) if catalog is None else catalog
        self.catalog = whole if split is None else whole.choose_split(split)
        self.classes = () if labels is None else whole.classes(labels)
        self._labels = None if labels is None else torch.tensor(self.catalog.label_numbers(labels, self.classes))
        self.sampler = ClipSampler(
            self.catalog.videos, config.clip, config.augment, config.seed, views, self.catalog.shares
        )
        share = batch_size // world_size
        self.choice = choice or trial.choose(
            self.catalog, config, device, views=views, batch_size=share, world_size=world_size
        )
        self._position, self._restored = 0, False

    def __iter__(self) -> Iterator[ClipBatch]:
        """Goes on in the endless stream of training clips, behind the batch that was delivered last.

        Yields:
            The share of this rank in each batch.
        """
        return self._deliver(self._position, None)

    def epoch(self, number: int) -> Iterator[ClipBatch]:
        """Passes once over the training clips of an epoch: one of each video, or as the weights of `data.roots` say.

        A position that `load_state_dict` has set inside this epoch is where the first pass begins.

        Args:
            number: The number of the epoch, from 0.

        Yields:
            The share of this rank in each batch. The last batch is smaller where the videos do not divide into whole
            ones, and ranks that have no share in it do not get it.
        """
        first, stop = (self.sampler.clips_per_epoch * epoch for epoch in (number, number + 1))
        return self._deliver(self._position if self._restored and first < self._position < stop else first, stop)

    def steps(self, start: int, stop: int) -> Iterator[ClipBatch]:
        """Delivers the batches of some training steps: step s takes the clips from s * batch_size on.

        Args:
            start: The first step.
            stop: One more than the last step.

        Yields:
            The share of this rank in each batch.
        """
        return self._deliver(start * self.batch_size, stop * self.batch_size)

    def evaluation(
        self, clips_per_video: int = 10, videos: Sequence[int] | None = None, crops: Literal[1, 3] = 1
    ) -> Iterator[ClipBatch]:
        """Passes once over evenly spaced clips of each video, in their own colours.

        Every rank takes each `world_size`-th video. The position in the training clips stays what it is.

        Args:
            clips_per_video: The number of clips of each video.
            videos: The videos that this rank takes instead, as positions in the catalog.
            crops: The number of views of a clip: 1 for the centre crop, or 3 along the longer side of the frame, its
                beginning, its centre and its end.

        Yields:
            The batches of this rank, with the clips of a video one after the other.
        """
        config = self.config
        own_videos = range(self.rank, len(self.catalog.videos), self.world_size) if videos is None else videos
        starts = config.retrieval.clip_starts
        plans = evaluation_plans(
            self.catalog.videos, own_videos, clips_per_video, config.clip, config.augment, starts, crops
        )
        return self._load(self._in_batches(plans))

    def clips_at(self, starts: Iterable[tuple[int, Sequence[int]]]) -> Iterator[ClipBatch]:
        """Passes once over clips at given starts, in the centre crop and in their own colours.

        The position in the training clips stays what it is.

        Args:
            starts: The videos of this rank, as positions in the catalog, each with the first frames of its clips.

        Yields:
            The batches of this rank, with the clips of a video one after the other. `batch.index` counts the clips.
        """
        plans = plans_at(self.catalog.videos, starts, self.config.clip, self.config.augment)
        return self._load(self._in_batches(plans))

    def state_dict(self) -> dict[str, Any]:
        """Returns the position behind the batch that was delivered last; what is loaded ahead does not count.

        It is the same on all ranks, and may be loaded with another number of ranks and another size of a batch.
        """
        return {"next_clip": self._position, "fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets the position to that of another loader of the same clips. It holds for iterations that begin later.

        Args:
            state_dict: What `state_dict` returned.

        Raises:
            CheckpointError: The state is that of other videos, or of another seed or other settings of the clips.
        """
        if state_dict["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.catalog.root}: the state of the loader belongs to other videos, to other weights of their "
                "roots, to another seed, or to other settings of clips or augmentation: use those that it was saved "
                "with, or begin anew"
            )
        self._position, self._restored = state_dict["next_clip"], True

    @property
    def epochs_done(self) -> int:
        """The number of epochs that are delivered to the end."""
        return self._position // self.sampler.clips_per_epoch

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256, as hex digits, over everything that decides the training clips."""
        config = self.config
        deciding = (self.catalog.fingerprint, config.seed, config.clip, config.augment, self.views)
        return hashlib.sha256(repr(deciding).encode()).hexdigest()

    @cached_property
    def backend(self) -> Backend:
        """What turns plans into batches. It is built when the first batch is asked for."""
        log.info("loader: %s, %s", self.choice.name, self.choice.reason)
        return build_backend(self.choice.name, self.catalog, self.config, self.device, distributed.local_world_size())

    def _deliver(self, first: int, stop: int | None) -> Iterator[ClipBatch]:
        """Loads a stretch of the training clips, and keeps account of the position."""
        plans = self.sampler.stretch(first, stop, self.batch_size, self.rank, self.world_size)
        for number, batch in enumerate(self._load(plans), start=1):
            end = first + number * self.batch_size
            self._position, self._restored = end if stop is None else min(end, stop), False
            yield self._transform(batch) if self.config.augment.batch_transforms else batch
        if stop is not None:  # This rank may have had no share in the last batch.
            self._position = stop

    def _transform(self, batch: ClipBatch) -> ClipBatch:
        """Applies the batch transforms on the device, with a random stream of its own for each view of each clip."""
        indices = batch.index.tolist()
        batch = batch.to(self.device)
        views = list(batch.views)
        for number, view in enumerate(views):
            streams = [RandomStream(self.config.seed, BATCH_TRANSFORM_STREAM, index, number) for index in indices]
            for name in self.config.augment.batch_transforms:
                before, view = view, BATCH_TRANSFORMS.load(name)(view, streams)
                if (view.shape, view.dtype) != (before.shape, before.dtype):
                    raise ConfigError(
                        f"augment.batch_transforms: {name} gives {view.dtype} {list(view.shape)} for {before.dtype} "
                        f"{list(before.shape)}, and may not change either"
                    )
            views[number] = view
        return replace(batch, views=tuple(views))

    def _in_batches(self, plans: Iterator[ClipPlan]) -> Iterator[list[ClipPlan]]:
        """Takes as many plans at a time as this rank has clips in a batch."""
        share = self.batch_size // self.world_size
        return iter(lambda: list(islice(plans, share)), [])

    def _load(self, plans: Iterable[Sequence[ClipPlan]]) -> Iterator[ClipBatch]:
        for batch in self.backend.batches(plans):
            if self._labels is None:
                yield batch
            else:
                yield replace(batch, labels=to_device(self._labels[batch.video.cpu()], batch.video.device))


def _scan(config: Config) -> Catalog:
    """Scans the data set, and warns of files that cannot be used."""
    found = scan(config.data, min_frames=config.clip.min_frames)
    found.check(config.data.max_rejected_share)
    for part in found.parts:
        for path, reason in part.rejected[:1]:
            count = len(part.rejected)
            log.warning("%s: %s files cannot be used, such as %s, which %s", part.root, count, path, reason)
    return found
