"""Which videos an evaluation takes, and what it may not change."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.combined_catalog import combine
from cacl.loaders.catalog.scan import scan
from cacl.reporting.console import Console, log_catalog

log = logging.getLogger(__name__)

FIXED_BY_WEIGHTS = ("model.", "clip.frames", "contrast.pairs")
"""Configuration keys, or beginnings of keys, that the weights decide and an evaluation cannot set."""

SPLIT_NAMES = {"test": "test", "val": "validation", "train": "training"}
"""The splits as messages call them."""


def check_fixed_keys(weights: EncoderWeights, config: Config) -> None:
    """Checks that an evaluation sets no key that the weights decide.

    Args:
        weights: The trained encoders.
        config: The configuration of the evaluation.

    Raises:
        UsageError: The configuration differs from that of the weights in such a key.
    """
    fixed = [line for line in configuration.differences(weights.config, config) if line.startswith(FIXED_BY_WEIGHTS)]
    if fixed:
        raise UsageError(f"the weights decide {'; '.join(fixed)}: leave that as it is")


def scan_videos(config: Config, console: Console, gallery: str | None = None) -> Catalog:
    """Scans the data set of an evaluation, on rank 0 first, and tells what it found.

    Args:
        config: The configuration of the evaluation.
        console: Shows the progress.
        gallery: The root of another data set, whose videos are retrieved.

    Returns:
        All videos, whatever their split. With a gallery, its catalog is the last of the catalog's `parts`.

    Raises:
        UsageError: The gallery is the data set itself.
        DataError: The videos cannot be read, or too many of them cannot be used.
    """
    progress = partial(console.progress, "scanning")
    with distributed.main_first():
        catalog = scan(config.data, min_frames=config.clip.frames, progress=progress)
        if gallery:
            beside = replace(config.data, root=gallery, layout="auto", test_share=0.0, roots=())
            other = scan(beside, min_frames=config.clip.frames, progress=progress)
            if other.root in [part.root for part in catalog.parts]:
                raise UsageError(f"--gallery {gallery}: is where the queries come from, too; leave it out")
            parts = [*catalog.parts, other]
            catalog = combine(parts, [1.0] * len(parts))
    catalog.check(config.data.max_rejected_share)
    log_catalog(catalog)
    return catalog


def videos_of_split(catalog: Catalog, split: str) -> list[int]:
    """Finds the videos of a split.

    Args:
        catalog: The videos of the data set.
        split: `train`, `val` or `test`.

    Returns:
        Their positions in the catalog.

    Raises:
        DataError: There are none. The message says what to do.
    """
    found = [i for i, video in enumerate(catalog.videos) if video.split == split]
    if not found:
        counts = Counter(video.split for video in catalog.videos if video.split)
        other = {"test": "val", "val": "test"}.get(split, "")
        if counts[other]:
            way_out = f"--queries {other} takes the {counts[other]} {SPLIT_NAMES[other]} videos"
        elif counts:
            way_out = f"there are {', '.join(sorted(counts))}: tell its videos by a list or a folder"
        else:
            way_out = "use a layout with splits, or hold some videos out with --set data.test_share=0.25"
        raise DataError(
            f"{catalog.root}: no usable video belongs to the {SPLIT_NAMES[split]} split, and the evaluation needs it; "
            f"{way_out}"
        )
    return found


def video_labels(catalog: Catalog, label: str, queries: Sequence[int], gallery: Sequence[int]) -> list[str]:
    """Finds the label of each video, and says where scores by it tell nothing.

    Videos that neither query nor are queried need no label.

    Args:
        catalog: The videos of the data set.
        label: `label`, or the name of another column of the lists of the data set.
        queries: The positions of the videos that are judged.
        gallery: The positions of the videos that they are held against, or that a classifier learns from.

    Returns:
        The labels of all videos of the catalog, "" where a video has none.

    Raises:
        DataError: There is no such column, or a video that needs a label has none.
    """
    values = [video.label_in(label) for video in catalog.videos]
    if not any(values):
        known = sorted({name for video in catalog.videos for name in video.attributes})
        raise DataError(
            f"{catalog.root}: its videos have no {label!r}; "
            + (f"the columns of its lists are {', '.join(known)}" if known else "an evaluation needs labelled videos")
        )
    for videos in (queries, gallery):
        missing = [catalog.videos[i] for i in videos if not values[i]]
        if missing:
            split = missing[0].split
            kind = f"{SPLIT_NAMES[split]} videos" if split else "videos"
            way_out = "; --queries val takes the validation videos" if split == "test" else ""
            raise DataError(
                f"{catalog.root}: {len(missing)} of {len(videos)} {kind} have no {label!r}, "
                f"{missing[0].path} among them{way_out}"
            )
    known = {values[i] for i in gallery}
    if len(known) == 1:
        log.info(f"note: every video that is learnt from has the {label} {known.pop()!r}: scores by it tell nothing")
    elif unknown := [catalog.videos[i] for i in queries if values[i] not in known]:
        log.info(
            f"note: {len(unknown)} of {len(queries)} videos that are judged have a {label} that no training video has, "
            f"and count as wrong, {unknown[0].path} among them"
        )
    return [value or "" for value in values]
