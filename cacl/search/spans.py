"""The features of spans of videos: each is the feature vector of one clip, in the centre crop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from cacl.clips import VideoRecord
from cacl.config import ClipConfig
from cacl.errors import DataError
from cacl.evaluation.features import feature_vector
from cacl.loaders.clip_loader import ClipLoader
from cacl.loaders.sampling.sampler import fitting_stride
from cacl.models.encoder import Encoder


def span_seconds(video: VideoRecord, clip: ClipConfig, start: int) -> tuple[float, float]:
    """Returns when a span begins and ends, in seconds, by the average frame rate of its video.

    Args:
        video: The record of the video.
        clip: The length and the stride of a clip.
        start: The number of the first frame of the span.
    """
    end = min(start + clip.frames * fitting_stride(video, clip), video.frames)
    return start / video.rate, end / video.rate


@torch.no_grad()
def span_features(
    encoder: Encoder, loader: ClipLoader, starts: Mapping[int, Sequence[int]]
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Computes the feature vectors of spans.

    Args:
        encoder: The encoder in evaluation mode, on the device of the loader.
        loader: The loader of the videos.
        starts: The first frames of the S spans of each wanted video, by its position in the catalog.

    Yields:
        Each video, as its position, with its features, float32 [S, F], or with the reason why it cannot be decoded.

    Raises:
        DataError: A feature is not finite.
    """
    function = feature_vector(encoder)
    found: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    reasons: dict[int, str] = {}
    remaining = {video: len(own) for video, own in starts.items()}
    for batch in loader.clips_at(starts.items()):
        videos = batch.video.tolist()
        if videos:
            features = function(batch.views[0].to(loader.device).float(), batch.order.to(loader.device)).cpu().numpy()
            if not np.isfinite(features).all():
                raise DataError("a feature is not finite: the weights of the encoder have diverged")
            for video, feature in zip(videos, features, strict=True):
                found[video].append(feature)
        for failure in batch.failures:
            reasons.setdefault(failure.video, failure.reason)
        for video in [*videos, *(failure.video for failure in batch.failures)]:
            remaining[video] -= 1
            if not remaining[video]:
                yield video, reasons.get(video) or np.stack(found[video])
                found.pop(video, None)
