"""Makes an index of a folder of videos, or brings it up to date: only files that are new or have changed are embedded.

Finished videos are written to parts of the index every few seconds, so that a process that is killed goes on where it
was. The index itself is written at the end, whole or not at all.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints.encoders import EncoderWeights
from cacl.clips import VideoRecord
from cacl.config import ClipConfig, Config
from cacl.errors import CheckpointError, DataError, UsageError, reason_of
from cacl.evaluation.videos import check_fixed_keys
from cacl.loaders.catalog.catalog import Rejected
from cacl.loaders.catalog.scan import scan
from cacl.loaders.clip_loader import ClipLoader
from cacl.loaders.sampling.sampler import consecutive_starts
from cacl.models.encoder import Encoder
from cacl.reporting.console import Console
from cacl.search.index import ENCODER_NAME, LOCK_NAME, PARTS_NAME, SPANS_NAME, IndexFolder, IndexHeader, IndexSettings
from cacl.search.spans import span_features, span_seconds

log = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 10.0
"""The time between two parts, of which a process that is killed loses the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSummary:
    """What was done to an index."""

    index: str
    """The folder of the index."""
    root: str
    """The folder or address of the videos."""
    spans: int
    """The number of spans that are in the index now."""
    kept: int
    """The number of videos that were in the index before, and stay."""
    added: int
    """The number of videos that were not in it."""
    changed: int
    """The number of videos of which the index had spans of other bytes of the file."""
    removed: int
    """The number of videos that were taken out, since there is no such file any more."""
    rejected: tuple[Rejected, ...]
    """The files that cannot be used. Those that were in the index are not any more."""

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as values that JSON can hold."""
        return asdict(self) | {"rejected": [rejected._asdict() for rejected in self.rejected]}


def settings_for_videos(config: Config, root: str, overrides: Sequence[str]) -> Config:
    """Makes the configuration by which an encoder embeds the videos of a folder.

    Args:
        config: The configuration that came with the encoder.
        root: The folder of videos, a list of them, or a prepared set.
        overrides: Keys to set anew, each as `section.key=value`.

    Raises:
        UsageError: A key names other videos.
        ConfigError: The configuration does not hold together.
    """
    for key in (override.partition("=")[0].strip() for override in overrides):
        if key in ("data.root", "data.roots"):
            raise UsageError(f"--set {key}: the videos are given as {root}; leave one of them out")
    videos = {"data.root": root, "data.layout": "auto", "data.fold": 1, "data.test_share": 0.0, "data.roots": ()}
    return configuration.override(
        configuration.replace(config, videos, check_names=False), overrides, check_names=False
    )


def embed(
    weights: EncoderWeights,
    config: Config,
    folder: Path,
    encoder: str | None = None,
    every_seconds: float | None = None,
) -> EmbedSummary:
    """Brings an index up to date with a folder of videos, or makes it.

    A video is cut into spans, and the feature of a span is the feature vector of one clip, in the centre crop. A file
    that cannot be decoded is left out, and is tried again by the next call.

    Args:
        weights: The trained encoders.
        config: The configuration of the index, see `settings_for_videos`.
        folder: The folder of the index. It is made if it does not exist.
        encoder: The encoder that embeds, `cnn` or `transformer`; None takes the first that there is.
        every_seconds: The time from the start of a span to that of the next. None: as long as a clip, so that spans
            follow one another.

    Returns:
        What was done.

    Raises:
        UsageError: The folder holds something else, or an index with other settings, or of another folder of videos.
        DataError: No video can be used, the index is damaged or cannot be written, or another process is at work on it.
        CheckpointError: There is no such encoder.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("cacl embed runs in a single process: start it without torchrun")
    if every_seconds is not None and not 0 < every_seconds < math.inf:
        raise UsageError(f"--every {every_seconds}: say a number of seconds above 0")
    check_fixed_keys(weights, config)
    which = encoder or next(iter(weights.names), "cnn")
    saved = replace(weights.select(which), config=config)
    network = saved.build(which)
    settings = IndexSettings.of(config, which, saved.digest, every_seconds)
    _open_index(folder, settings)  # What is wrong with it should be told before the scan, which may take long.
    with distributed.process_group(config.train.device) as device, Console() as console:
        catalog = scan(config.data, min_frames=config.clip.frames, progress=partial(console.progress, "scanning"))
        catalog.check(1.0)  # The index is made of those that can be used.
        loader = ClipLoader.from_config(
            config, catalog=catalog, batch_size=config.retrieval.batch_size, split=None, device=device
        )
        header = IndexHeader(root=str(catalog.root), settings=settings, backend=loader.choice.name)
        with _locked(folder):
            index = _open_index(folder, settings)
            rejected = [*catalog.rejected, *_embed_missing(index, header, saved, network.to(device), loader, console)]
            return _finish(index, header, catalog.videos, rejected)


def _finish(
    index: IndexFolder, header: IndexHeader, videos: Sequence[VideoRecord], rejected: list[Rejected]
) -> EmbedSummary:
    """Makes one index of all parts, and counts what has changed."""
    before = index.whole.contents() if index.whole else {}
    out = {path for path, _ in rejected}
    now = {video.path: video.content_hash for video in videos if video.path not in out}
    if not now:
        raise DataError(f"{header.root}: no video can be embedded: {rejected[0].path} {rejected[0].reason}")
    kept = [path for path in now.keys() & before.keys() if now[path] == before[path]]
    return EmbedSummary(
        index=str(index.folder),
        root=header.root,
        spans=len(index.finish(header, now)),
        kept=len(kept),
        added=len(now.keys() - before.keys()),
        changed=len(now.keys() & before.keys()) - len(kept),
        removed=len(before.keys() - now.keys() - out),
        rejected=tuple(sorted(rejected)),
    )


def _open_index(folder: Path, settings: IndexSettings) -> IndexFolder:
    """Opens an index that may be there already, and refuses one with other settings, and a folder of something else."""
    try:
        names = {file.name for file in folder.iterdir()} if folder.exists() else set[str]()
    except OSError as error:
        raise UsageError(f"--out {folder}: is no folder, or cannot be read ({error.strerror})") from None
    other = {name for name in names if not name.startswith(".")} - {ENCODER_NAME, SPANS_NAME, PARTS_NAME}
    if other:
        raise UsageError(f"--out {folder}: is no index, and not empty ({min(other)}); name a folder of its own")
    index = IndexFolder(folder)
    index.check_settings(settings)
    return index


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder of an index, in which no other process writes until the block ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_NAME).open("ab")
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another `cacl embed` is at work there") from None
        yield


def _embed_missing(
    index: IndexFolder,
    header: IndexHeader,
    saved: EncoderWeights,
    encoder: Encoder,
    loader: ClipLoader,
    console: Console,
) -> list[Rejected]:
    """Embeds the videos that are in neither the index nor its parts, and returns those that cannot be embedded."""
    catalog, known = loader.catalog, index.contents()
    current = {video.path: video.content_hash for video in catalog.videos}
    _check_root(index, header, known.items() & current.items())
    _write_encoder(index.folder, saved)
    if index.parts:
        log.info(f"{len(index.parts)} parts of an earlier call are taken over")
    rejected: list[Rejected] = []
    starts: dict[int, list[int]] = {}
    for number, video in enumerate(catalog.videos):
        if not _is_utf8(video.path):
            rejected.append(Rejected(video.path, "has a name that is not UTF-8; give it another one"))
        elif known.get(video.path) != video.content_hash:
            starts[number] = span_starts(video, loader.config, header.settings.every_seconds)
    if not starts:
        return rejected
    unsaved: list[pa.Table] = []
    saved_at = time.monotonic()
    try:
        for done, (number, features) in enumerate(span_features(encoder, loader, starts), 1):
            video = catalog.videos[number]
            console.progress("embedding", done, len(starts), video.path)
            if isinstance(features, str):
                rejected.append(Rejected(video.path, features.removeprefix(f"{catalog.location(video)}: ")))
                continue
            unsaved.append(_rows(video, starts[number], features, header, loader.config.clip))
            if time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                saving, unsaved, saved_at = unsaved, [], time.monotonic()
                index.add_part(pa.concat_tables(saving))
    finally:
        if unsaved:
            index.add_part(pa.concat_tables(unsaved))
    return rejected


def span_starts(video: VideoRecord, config: Config, every_seconds: float | None) -> list[int]:
    """Returns the first frames of the spans of a video.

    Args:
        video: The record of the video.
        config: The configuration of the index.
        every_seconds: The time from the start of a span to that of the next. None: as long as a clip.
    """
    distance = None if every_seconds is None else max(1, round(every_seconds * video.rate))
    return consecutive_starts(video, config.clip, distance)


def _rows(
    video: VideoRecord, starts: list[int], features: np.ndarray, header: IndexHeader, clip: ClipConfig
) -> pa.Table:
    """Makes the rows of the spans of a video."""
    seconds = [span_seconds(video, clip, start) for start in starts]
    schema = header.schema(features.shape[1])
    columns = [
        [video.path] * len(starts),
        [video.content_hash] * len(starts),
        starts,
        [start for start, _ in seconds],
        [end for _, end in seconds],
        pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), type=schema.field("feature").type),
    ]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def _check_root(index: IndexFolder, header: IndexHeader, common: Collection[object]) -> None:
    """Refuses another folder of videos, unless it has some of the same videos: a folder may have been moved."""
    for file in index.files:
        if file.header.root != header.root and not common:
            raise UsageError(
                f"{index.folder}: is an index of {file.header.root}, and none of its videos is in {header.root}; "
                "make another index"
            )


def _write_encoder(folder: Path, weights: EncoderWeights) -> None:
    """Writes the encoder unless it is there, whole and the same."""
    file = folder / ENCODER_NAME
    with suppress(CheckpointError):
        if EncoderWeights.read(file).digest == weights.digest:
            return
    try:
        weights.save(file)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written ({reason_of(error)})") from None


def _is_utf8(path: str) -> bool:
    """Whether a table can hold a path. Python keeps other bytes of a name as lone surrogates."""
    return not any("\udc80" <= letter <= "\udcff" for letter in path)
