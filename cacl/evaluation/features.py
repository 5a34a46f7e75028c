"""One feature vector per video, written to arrays on disk that are kept under a key of all that decides them."""

from __future__ import annotations

import hashlib
import json
import logging
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
from cacl.files import atomic_write
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.models.encoder import Encoder
from cacl.models.video_transformer import VideoTransformer

log = logging.getLogger(__name__)

FeatureFunction = Callable[[Tensor, Tensor], Tensor]
"""A function (clips float32 [B, 3, T, H, W], order integers [B, T]) -> features float32 [B, F]."""

FINISHED_MARKER = "finished"
"""The name of an empty file that stands beside arrays once they are complete."""


def encoder_feature(encoder: Encoder) -> FeatureFunction:
    """Returns the feature that an encoder is judged by.

    For a CNN it is the conv5 map, max-pooled by (1, 2, 2) and flattened, which has 9216 entries for C3D and clips of
    16 x 112 x 112 (Guo et al., CVPR 2022). For an encoder of tokens, as a transformer is, it is the feature vector: of
    the video transformer that of CLS, for the clip beside an unshuffled copy of itself.

    Args:
        encoder: An encoder in evaluation mode.

    Returns:
        The function that computes the feature, on the device of the encoder.
    """
    if isinstance(encoder, VideoTransformer):
        return lambda clips, order: encoder(clips, order).float()

    def pooled_map(clips: Tensor, order: Tensor) -> Tensor:
        maps = encoder.forward_features(clips)
        if maps.dim() != 5:
            return encoder(clips).float()
        pool = (1, min(2, maps.shape[-2]), min(2, maps.shape[-1]))  # maps of small views may be a single pixel
        return F.max_pool3d(maps, pool).flatten(1).float()

    return pooled_map


def video_features(
    functions: Mapping[str, FeatureFunction],
    weights: str,
    config: Config,
    catalog: Catalog,
    device: torch.device,
    folder: Path,
    on_progress: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    """Takes the features of an earlier evaluation where nothing that decides them has changed, or extracts them.

    Args:
        functions: The features by name.
        weights: The digest of the weights of the encoders.
        config: The configuration of the evaluation.
        catalog: The V videos.
        device: The device that computes.
        folder: The folder that keeps features, below the key of what decides them.
        on_progress: As for `extract`.

    Returns:
        The arrays by name of the feature, each float32 [V, F] with an F of its own.

    Raises:
        DataError: A clip cannot be loaded. The message names its file.
    """
    rank, world_size = distributed.rank(), distributed.world_size()
    loader = ClipLoader.from_config(
        config,
        catalog=catalog,
        batch_size=config.retrieval.batch_size * world_size,
        split=None,
        rank=rank,
        world_size=world_size,
        device=device,
    )
    folder = folder / cache_key(weights, catalog, config, loader.choice.name)
    cached = load_cached(folder, list(functions))
    if cached is not None:
        log.info("features of an earlier evaluation, from %s", folder)
        return cached
    arrays = extract(functions, loader, folder, on_progress)
    if rank == 0:
        mark_finished(folder)
    return arrays


@torch.no_grad()
def extract(
    functions: Mapping[str, FeatureFunction],
    loader: ClipLoader,
    folder: Path,
    on_progress: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    """Computes the features of all videos in one pass over them, and writes one array per feature.

    The feature of a video is the mean of those of its clips. Every video is decoded once, on one rank, and all ranks
    write their rows into the same files. The arrays count as complete only after `mark_finished`.

    Args:
        functions: The features by name.
        loader: The loader of the V videos. The features are computed on its device.
        folder: The folder of the arrays. It is made by rank 0.
        on_progress: A function that is called after each batch with the number of this rank's clips that are done, and
            their total.

    Returns:
        The arrays by name of the feature, each float32 [V, F] with an F of its own.

    Raises:
        DataError: A clip cannot be loaded. The message names its file.
    """
    config, videos, clips_per_video = loader.config, loader.catalog.videos, loader.config.retrieval.clips_per_video
    lengths = _feature_lengths(functions, config, loader.device)
    arrays = _create_arrays(folder, len(videos), lengths)
    sums = {name: torch.zeros(length) for name, length in lengths.items()}
    clips_done, clips = 0, clips_per_video * len(range(loader.rank, len(videos), loader.world_size))
    for batch in loader.evaluation(clips_per_video):
        if batch.failures:  # A mean over fewer clips would not compare with others.
            raise DataError(batch.failures[0].reason)
        values = _batch_features(functions, batch, loader.device)
        for row, (video, index) in enumerate(zip(batch.video.tolist(), batch.index.tolist(), strict=True)):
            for name, value in values.items():
                sums[name] += value[row]
                if index % clips_per_video == clips_per_video - 1:  # the last clip of its video
                    arrays[name][video] = (sums[name] / clips_per_video).numpy()
                    sums[name].zero_()
        clips_done += len(batch)
        on_progress(clips_done, clips)
    for array in arrays.values():
        array.flush()
    distributed.barrier()
    return {name: np.load(_array_file(folder, name), mmap_mode="r") for name in lengths}


def cache_key(weights: str, catalog: Catalog, config: Config, backend: str) -> str:
    """Digests everything that decides the features: weights, videos, clips, crop and backend.

    Args:
        weights: The digest of the weights of the encoders.
        catalog: The videos.
        config: The configuration of the evaluation.
        backend: The name of the backend that decodes and augments.

    Returns:
        16 hex digits.
    """
    deciding = [
        config.seed,  # It decides the weights of the untrained encoders.
        weights,
        catalog.fingerprint,
        repr(config.clip),
        repr((config.augment.crop, config.augment.resize)),
        config.retrieval.clips_per_video,
        config.retrieval.clip_starts,
        backend,
    ]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16]


def load_cached(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Opens the arrays that an earlier extraction left.

    Args:
        folder: The folder of the arrays.
        names: The names of the features.

    Returns:
        The arrays by name, float32 [V, F], or None if the extraction was not finished or an array is missing or
        damaged.
    """
    if not (folder / FINISHED_MARKER).exists():
        return None
    try:
        return {name: np.load(_array_file(folder, name), mmap_mode="r") for name in names}
    except (OSError, ValueError):
        return None


def mark_finished(folder: Path) -> None:
    """Marks the arrays of a folder as complete. One rank calls it, after the extraction of all ranks has ended.

    Args:
        folder: The folder of the arrays.
    """
    with atomic_write(folder / FINISHED_MARKER) as temporary:
        temporary.touch()


def _batch_features(
    functions: Mapping[str, FeatureFunction], batch: ClipBatch, device: torch.device
) -> dict[str, Tensor]:
    """The features of a batch by name, float32 [B, F] on the CPU."""
    clips, order = batch.views[0].to(device).float(), batch.order.to(device)
    return {name: function(clips, order).cpu() for name, function in functions.items()}


def _feature_lengths(functions: Mapping[str, FeatureFunction], config: Config, device: torch.device) -> dict[str, int]:
    """The length of each feature, found by a clip of zeros."""
    frames, size = config.clip.frames, config.clip.size
    clip = torch.zeros(1, 3, frames, size, size, device=device)
    order = torch.arange(frames, device=device)[None]
    return {name: function(clip, order).shape[1] for name, function in functions.items()}


def _create_arrays(folder: Path, videos: int, lengths: Mapping[str, int]) -> dict[str, np.memmap]:
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        # The marker may be that of arrays which were finished once and damaged since.
        (folder / FINISHED_MARKER).unlink(missing_ok=True)
        for name, length in lengths.items():
            open_memmap(_array_file(folder, name), "w+", np.float32, (videos, length)).flush()
    distributed.barrier()
    return {name: open_memmap(_array_file(folder, name), "r+") for name in lengths}


def _array_file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '_')}.npy"
