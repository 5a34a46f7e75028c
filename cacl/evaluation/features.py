"""One feature per video, written to arrays on disk that are kept under a key of all that decides them."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
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
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.models.encoder import Encoder
from cacl.models.video_transformer import VideoTransformer

log = logging.getLogger(__name__)

FeatureFunction = Callable[[Tensor, Tensor], Tensor]
"""A function (clips float32 [B, 3, T, H, W], order integers [B, T]) -> features float32 [B, F], or tokens
float32 [B, N, F]."""

SAVE_EVERY_SECONDS = 10.0
"""The time between two notes of which videos are done, from which an extraction that is killed goes on."""


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
        return feature_vector(encoder)

    def pooled_map(clips: Tensor, order: Tensor) -> Tensor:
        maps = encoder.forward_features(clips)
        if maps.dim() != 5:
            return encoder(clips).float()
        pool = (1, min(2, maps.shape[-2]), min(2, maps.shape[-1]))  # maps of small views may be a single pixel
        return F.max_pool3d(maps, pool).flatten(1).float()

    return pooled_map


def feature_vector(encoder: Encoder) -> FeatureFunction:
    """Returns the feature vector of an encoder: of a 3D CNN its average pool, of the video transformer that of CLS.

    Args:
        encoder: An encoder in evaluation mode.

    Returns:
        The function that computes it, on the device of the encoder.
    """
    if isinstance(encoder, VideoTransformer):
        return lambda clips, order: encoder(clips, order).float()
    return lambda clips, order: encoder(clips).float()


def token_features(encoder: Encoder) -> FeatureFunction:
    """Returns the tokens of an encoder: of a CNN the positions of its last feature map, of a transformer all tokens.

    Args:
        encoder: An encoder in evaluation mode.

    Returns:
        The function that computes the tokens, float32 [B, N, F], on the device of the encoder.
    """

    def tokens(clips: Tensor, order: Tensor) -> Tensor:
        found = encoder.forward_features(clips)
        return (found.flatten(2).transpose(1, 2) if found.dim() == 5 else found).float()

    return tokens


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
        The arrays by name of the feature, each float32 [V, F], or [V, N, F] for tokens, with an N and an F of its own.

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
    distributed.barrier()  # No rank may begin to write before all have looked.
    if cached is not None:
        log.info("features of an earlier evaluation, from %s", folder)
        return cached
    return extract(functions, loader, folder, on_progress)


@torch.no_grad()
def extract(
    functions: Mapping[str, FeatureFunction],
    loader: ClipLoader,
    folder: Path,
    on_progress: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    """Computes the features of all videos in one pass over them, and writes one array per feature.

    The feature of a video is the mean of those of its clips. Every video is decoded once, on one rank, and all ranks
    write their rows into the same files. Beside each array stands which of its rows are done, so that an extraction
    that was killed goes on where it was, on any number of ranks.

    Args:
        functions: The features by name.
        loader: The loader of the V videos. The features are computed on its device.
        folder: The folder of the arrays. It is made by rank 0.
        on_progress: A function that is called after each batch with the number of this rank's clips that are done, and
            their total.

    Returns:
        The arrays by name of the feature, each float32 [V, F], or [V, N, F] for tokens, with an N and an F of its own.

    Raises:
        DataError: A clip cannot be loaded. The message names its file.
    """
    config, clips_per_video = loader.config, loader.config.retrieval.clips_per_video
    shapes = _feature_shapes(functions, config, loader.device)
    arrays = _open_arrays(folder, len(loader.catalog.videos), shapes)
    missing = np.flatnonzero(~np.logical_and.reduce([array.done for array in arrays.values()])).tolist()
    distributed.barrier()  # All ranks see the same videos missing.
    if len(missing) < len(loader.catalog.videos):
        log.info(
            "%d of %d videos have their features already",
            len(loader.catalog.videos) - len(missing),
            len(loader.catalog.videos),
        )
    own = missing[loader.rank :: loader.world_size]
    sums = {name: torch.zeros(shape) for name, shape in shapes.items()}
    clips_done, saved_at = 0, time.monotonic()
    try:
        for batch in loader.evaluation(clips_per_video, own):
            if batch.failures:  # A mean over fewer clips would not compare with others.
                raise DataError(batch.failures[0].reason)
            values = _batch_features(functions, batch, loader.device)
            for row, (video, index) in enumerate(zip(batch.video.tolist(), batch.index.tolist(), strict=True)):
                for name, value in values.items():
                    sums[name] += value[row]
                    if index % clips_per_video == clips_per_video - 1:  # the last clip of its video
                        arrays[name].write(video, (sums[name] / clips_per_video).numpy())
                        sums[name].zero_()
            clips_done += len(batch)
            on_progress(clips_done, clips_per_video * len(own))
            if time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                _save(arrays)
                saved_at = time.monotonic()
    finally:
        _save(arrays)
    distributed.barrier()
    return {name: np.load(_array_file(folder, name), mmap_mode="r") for name in shapes}


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
        The arrays by name, as `extract` returns them, or None if an extraction was not finished or an array is missing
        or damaged.
    """
    try:
        if not all(np.load(_done_file(folder, name)).all() for name in names):
            return None
        return {name: np.load(_array_file(folder, name), mmap_mode="r") for name in names}
    except (OSError, ValueError):
        return None


class _VideoArray:
    """The array of one feature, float32 [V, F] or [V, N, F] on disk, and which of its rows are done."""

    def __init__(self, folder: Path, name: str) -> None:
        self.rows = open_memmap(_array_file(folder, name), "r+")
        self.done = open_memmap(_done_file(folder, name), "r+")
        self._unsaved: list[int] = []

    def write(self, video: int, feature: np.ndarray) -> None:
        """Writes a row, which is not done before `save`."""
        self.rows[video] = feature
        self._unsaved.append(video)

    def save(self) -> None:
        """Brings what was written to disk, and then the note that it is done: never the note without the rows."""
        self.rows.flush()
        self.done[self._unsaved] = True
        self.done.flush()
        self._unsaved.clear()


def _save(arrays: Mapping[str, _VideoArray]) -> None:
    for array in arrays.values():
        array.save()


def _batch_features(
    functions: Mapping[str, FeatureFunction], batch: ClipBatch, device: torch.device
) -> dict[str, Tensor]:
    """The features of a batch by name, float32 [B, F] or [B, N, F] on the CPU."""
    clips, order = batch.views[0].to(device).float(), batch.order.to(device)
    return {name: function(clips, order).cpu() for name, function in functions.items()}


def _feature_shapes(
    functions: Mapping[str, FeatureFunction], config: Config, device: torch.device
) -> dict[str, tuple[int, ...]]:
    """The shape of each feature of one clip, [F] or [N, F], found by a clip of zeros."""
    frames, size = config.clip.frames, config.clip.size
    clip = torch.zeros(1, 3, frames, size, size, device=device)
    order = torch.arange(frames, device=device)[None]
    return {name: tuple(function(clip, order).shape[1:]) for name, function in functions.items()}


def _open_arrays(folder: Path, videos: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, _VideoArray]:
    """Opens the arrays of an extraction that was not finished, and makes those that are missing or damaged anew."""
    kib_per_video = sum(math.prod(shape) for shape in shapes.values()) * np.float32().nbytes / 2**10
    log.info("features of %.1f KiB per video, %.1f MiB in all", kib_per_video, kib_per_video * videos / 2**10)
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for name, shape in shapes.items():
            array_file, done_file = _array_file(folder, name), _done_file(folder, name)
            if not (_fits(array_file, (videos, *shape)) and _fits(done_file, (videos,))):
                done_file.unlink(missing_ok=True)
                open_memmap(array_file, "w+", np.float32, (videos, *shape)).flush()
                open_memmap(done_file, "w+", np.bool_, (videos,)).flush()
    distributed.barrier()
    return {name: _VideoArray(folder, name) for name in shapes}


def _fits(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(file, mmap_mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _array_file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '_')}.npy"


def _done_file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '_')}.done"
