"""Validation videos for a data set that has none: some of its training videos take their place."""

from __future__ import annotations

from dataclasses import replace

from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.layouts.hold_out import draw_validation
from cacl.loaders.catalog.prepared_videos import PreparedVideos


def with_validation(catalog: Catalog, column: str, share: float) -> Catalog:
    """Holds out some training videos as `val`, unless there are validation videos. Test videos stay what they are.

    Args:
        catalog: All videos of a data set of one root.
        column: The labels whose classes are divided: `label`, or the name of another column of the lists.
        share: The share of each class to hold out, above 0 and below 1.

    Returns:
        The catalog with the new splits. Training videos without a label stay training videos.

    Raises:
        DataError: There are no training videos, or no class has two of them with a label.
    """
    if catalog.of_split("val").videos:
        return catalog
    videos, training = catalog.videos, "train" if catalog.has_splits else None
    positions, labels = {}, {}
    for position, video in enumerate(videos):
        label = video.label_in(column)
        if label and video.split == training:
            path = videos.source_path(position) if isinstance(videos, PreparedVideos) else video.path
            positions[path], labels[path] = position, label
    drawn = {positions[path] for path in draw_validation(labels, share)}
    if not drawn:
        raise DataError(
            f"{catalog.root}: no class of {column!r} has two training videos, and none can be held out for validation: "
            "give it more, or tell its validation videos by a list or a folder"
        )
    if isinstance(videos, PreparedVideos):
        return replace(catalog, videos=videos.with_validation(sorted(drawn)))
    return replace(
        catalog,
        videos=tuple(
            replace(video, split="val" if position in drawn else "train") if video.split == training else video
            for position, video in enumerate(videos)
        ),
    )
