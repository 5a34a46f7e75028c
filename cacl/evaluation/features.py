"""One feature vector per video, streamed into arrays on disk that are keyed by all that decides them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from torch import Tensor

from cacl import distributed
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import DataError
from cacl.loaders.backends.select import Backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.sampling.sampler import evaluation_plans
from cacl.models.cnn3d import CNN3D
from cacl.models.video_transformer import VideoTransformer

FeatureOf = Callable[[Tensor, Tensor], Tensor]
"""(clips [B, 3, T, H, W], order [B, T]) -> float32 [B, features]."""


def feature_of(encoder: CNN3D | VideoTransformer) -> FeatureOf:
    """What an encoder is judged by.

    CNN: the conv5 map, max-pooled by (1, 2, 2) and flattened, 9216-d for C3D on 16 x 112 x 112 (Guo et al., CVPR 2022).
    Transformer: the CLS feature of the clip beside an unshuffled copy of itself.
    """
    if isinstance(encoder, VideoTransformer):
        return lambda clips, order: encoder(clips, order).float()

    def feature(clips: Tensor, order: Tensor) -> Tensor:
        maps = encoder.forward_features(clips)
        pool = (1, min(2, maps.shape[-2]), min(2, maps.shape[-1]))  # maps of small views may be a single pixel
        return F.max_pool3d(maps, pool).flatten(1).float()

    return feature


def mean_frame(clips: Tensor, order: Tensor) -> Tensor:
    """A baseline that has learnt nothing: the mean frame of the clip at 16 x 16."""
    return F.adaptive_avg_pool2d(clips.mean(2), 16).flatten(1)


def frame_difference(clips: Tensor, order: Tensor) -> Tensor:
    """A baseline that has learnt nothing: where the picture changes, at 16 x 16."""
    return F.adaptive_avg_pool2d(clips.diff(dim=2).abs().mean(2), 16).flatten(1)


@torch.no_grad()
def extract(
    features: Mapping[str, FeatureOf],
    catalog: Catalog,
    backend: Backend,
    config: Config,
    device: torch.device,
    folder: Path,
    report: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    """float32 [videos, length] per feature: the mean over the clips of a video, all features from one decoding pass.

    Every video is visited once, on any number of ranks, which write their rows into the same files under `folder`.
    Raises DataError naming the file that fails.
    """
    rank, world = distributed.rank(), distributed.world()
    mine = range(rank, len(catalog.videos), world)
    clips = config.retrieval.clips_per_video
    starts = config.retrieval.clip_starts
    plans = list(evaluation_plans(catalog.videos, mine, clips, config.clip, config.augment, starts))
    chunks = [
        plans[start : start + config.retrieval.batch_size]
        for start in range(0, len(plans), config.retrieval.batch_size)
    ]
    lengths = _lengths(features, config, device)
    arrays = _create(folder, len(catalog.videos), lengths)
    sums = {name: torch.zeros(length) for name, length in lengths.items()}
    for number, batch in enumerate(backend.batches(chunks)):
        if batch.failures:  # results over fewer clips would not compare with others
            raise DataError(batch.failures[0].reason)
        values = _features_of(features, batch, device)
        for row, (video, index) in enumerate(zip(batch.video.tolist(), batch.index.tolist(), strict=True)):
            for name, value in values.items():
                sums[name] += value[row]
                if index % clips == clips - 1:  # the last clip of its video
                    arrays[name][video] = (sums[name] / clips).numpy()
                    sums[name].zero_()
        report(number + 1, len(chunks))
    for array in arrays.values():
        array.flush()
    distributed.barrier()
    return {name: np.load(_file(folder, name), mmap_mode="r") for name in lengths}


def cached(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """The arrays of an earlier, finished extraction; None if there is none, or it is damaged."""
    if not (folder / "finished").exists():
        return None
    try:
        return {name: np.load(_file(folder, name), mmap_mode="r") for name in names}
    except (OSError, ValueError):
        return None


def key_of(weights: str, catalog: Catalog, config: Config, backend: str) -> str:
    """Hex digest of everything that decides the features: weights, videos, clips, crop, backend."""
    settings = [
        config.seed,  # of the untrained encoders
        weights,
        catalog.fingerprint,
        repr(config.clip),
        repr((config.augment.crop, config.augment.resize)),
        config.retrieval.clips_per_video,
        config.retrieval.clip_starts,
        backend,
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def finish(folder: Path) -> None:
    """Marks the arrays as complete; called by one rank, after all."""
    temporary = folder / ".finished"
    temporary.touch()
    os.replace(temporary, folder / "finished")


def _features_of(features: Mapping[str, FeatureOf], batch: ClipBatch, device: torch.device) -> dict[str, Tensor]:
    clips, order = batch.views[0].to(device).float(), batch.order.to(device)
    return {name: feature(clips, order).cpu() for name, feature in features.items()}


def _lengths(features: Mapping[str, FeatureOf], config: Config, device: torch.device) -> dict[str, int]:
    frames, size = config.clip.frames, config.clip.size
    clip = torch.zeros(1, 3, frames, size, size, device=device)
    order = torch.arange(frames, device=device)[None]
    return {name: feature(clip, order).shape[1] for name, feature in features.items()}


def _create(folder: Path, videos: int, lengths: Mapping[str, int]) -> dict[str, np.memmap]:
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "finished").unlink(missing_ok=True)  # of arrays that were damaged since
        for name, length in lengths.items():
            open_memmap(_file(folder, name), "w+", np.float32, (videos, length)).flush()
    distributed.barrier()
    return {name: open_memmap(_file(folder, name), "r+") for name in lengths}


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '_')}.npy"
