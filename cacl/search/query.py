"""Finds the spans of an index that are most like those of a video. The search is exact."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cacl import distributed
from cacl.checkpoints.encoders import EncoderWeights
from cacl.clips import VideoRecord
from cacl.config import ClipConfig, Config, override, replace
from cacl.errors import CheckpointError, DataError, UsageError, reason_of
from cacl.evaluation.search import nearest
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import counted_frames
from cacl.loaders.clip_loader import ClipLoader
from cacl.loaders.decode.probe import probe
from cacl.loaders.decode.storage import is_remote
from cacl.loaders.sampling.sampler import consecutive_starts
from cacl.search.index import ENCODER_NAME, SPANS_NAME, IndexSettings, SpanFile
from cacl.search.spans import span_features, span_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A span of an index that is like a span of the query."""

    path: str
    """The path of the video, relative to the root of the index."""
    start_seconds: float
    """When the span begins in this video."""
    end_seconds: float
    """When the span ends."""
    score: float
    """The cosine of the features of the span and of the span of the query that is most like it."""
    query_start_seconds: float
    """When that span of the query begins."""
    query_end_seconds: float
    """When that span of the query ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What was found in an index."""

    index: str
    """The folder of the index."""
    root: str
    """The folder or address that the paths of the matches start from."""
    query: str
    """The video that was searched with."""
    query_start_seconds: float
    """When the first span of the query begins."""
    query_end_seconds: float
    """When the last span of the query ends."""
    query_spans: int
    """The number of spans of the query."""
    spans: int
    """The number of spans in the index."""
    excluded: int
    """The number of spans of the index that show what the query shows, and are not among the matches."""
    embed_seconds: float
    """How long it took to decode and embed the query."""
    search_seconds: float
    """How long it took to read the index and to find the matches."""
    matches: tuple[Match, ...]
    """The spans that are most like the query, the nearest first."""

    def to_json(self) -> dict[str, Any]:
        """Returns the result as values that JSON can hold."""
        return asdict(self)


def search(
    folder: Path,
    query: Path,
    *,
    from_seconds: float = 0.0,
    to_seconds: float | None = None,
    top: int = 10,
    overrides: Iterable[str] = (),
) -> SearchResult:
    """Searches an index by a video, or by a part of it.

    The query is cut into spans that follow one another, and embedded by the encoder in the folder of the index. The
    score of a span of the index is that of the span of the query that is most like it. A mean over the spans of the
    query would be like none of them where the query shows several things.

    Where the query is a file of the index itself, spans that overlap the query in time are left out.

    Args:
        folder: The folder of the index.
        query: A video file.
        from_seconds: Where the part of the query begins.
        to_seconds: Where it ends; None: at the end of the video. A part that is shorter than a clip is widened to one.
        top: How many spans to find.
        overrides: Keys to set anew, such as `train.device=cpu`. Those that decide the features stay.

    Returns:
        The matches.

    Raises:
        UsageError: The part does not lie in the video, or an override changes the features.
        DataError: There is no index, or it is damaged, or the query cannot be decoded.
        CheckpointError: The encoder of the index is missing or damaged.
    """
    if top < 1:
        raise UsageError(f"--top {top}: say a number from 1 on")
    index, weights, config = _load(folder, overrides)
    started = time.perf_counter()
    query_seconds, features = _embed_query(
        weights, config, index.header.settings.encoder, query, from_seconds, to_seconds
    )
    embedded = time.perf_counter()
    excluded, matches = _find(index, query, query_seconds, features, top)
    return SearchResult(
        index=str(folder),
        root=index.header.root,
        query=str(query),
        query_start_seconds=query_seconds[0][0],
        query_end_seconds=query_seconds[-1][1],
        query_spans=len(features),
        spans=len(index),
        excluded=excluded,
        embed_seconds=embedded - started,
        search_seconds=time.perf_counter() - embedded,
        matches=matches,
    )


def _load(folder: Path, overrides: Iterable[str]) -> tuple[SpanFile, EncoderWeights, Config]:
    """Opens an index with its encoder, and the configuration that queries are embedded by."""
    file = folder / SPANS_NAME
    if not file.is_file():
        raise DataError(f"{folder}: is no index, or not a finished one; `cacl embed` makes it")
    index, weights = SpanFile(file), EncoderWeights.read(folder / ENCODER_NAME)
    settings = index.header.settings
    if weights.digest != settings.weights:
        raise CheckpointError(
            f"{weights.source}: is not the encoder that {file} was made with; the same `cacl embed` as then mends that"
        )
    config = override(_on_the_cpu_by_default(weights.config), list(overrides), check_names=False)
    asked = IndexSettings.of(config, settings.encoder, settings.weights, settings.every_seconds)
    if found := settings.differences(asked):
        raise UsageError(f"{folder}: {'; '.join(found)}: leave that as it is, or make another index")
    return index, weights, config


def _embed_query(
    weights: EncoderWeights,
    config: Config,
    encoder: str,
    query: Path,
    from_seconds: float,
    to_seconds: float | None,
) -> tuple[list[tuple[float, float]], np.ndarray]:
    """Returns when each span of a part of the query begins and ends, and its features, float32 [S, F]."""
    video = _probe(query, config.clip)
    starts = consecutive_starts(video, config.clip, None, _stretch(query, video, from_seconds, to_seconds))
    alone = Catalog(root=query.absolute().parent, layout="", videos=(video,), rejected=(), missing=())
    with distributed.process_group(config.train.device) as device:
        loader = ClipLoader.from_config(
            config, catalog=alone, batch_size=config.retrieval.batch_size, split=None, device=device
        )
        ((_, features),) = span_features(weights.build(encoder).to(device), loader, {0: starts})
    if isinstance(features, str):
        raise DataError(features)
    return [span_seconds(video, config.clip, start) for start in starts], features


def _find(
    index: SpanFile, query: Path, query_seconds: Sequence[tuple[float, float]], features: np.ndarray, top: int
) -> tuple[int, tuple[Match, ...]]:
    """Returns how many spans of the index are the query itself, and the nearest of the others."""
    table = index.table(["path", "start_seconds", "end_seconds"])
    own = _own_rows(table, index.header.root, query, query_seconds[0][0], query_seconds[-1][1])
    excluded = int(own.sum())
    rows, which, scores = nearest_spans(features, index.features(), top + excluded)
    kept = np.flatnonzero(~own[rows])[:top]
    matches = tuple(
        Match(
            **row,
            score=float(scores[place]),
            query_start_seconds=query_seconds[int(which[place])][0],
            query_end_seconds=query_seconds[int(which[place])][1],
        )
        for row, place in zip(table.take(rows[kept]).to_pylist(), kept, strict=True)
    )
    return excluded, matches


def nearest_spans(
    queries: np.ndarray, blocks: Iterable[np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the k rows that are most like any of the queries, by the largest cosine.

    Cosines are computed in float32 first. Of each block, only rows that may be among the k nearest of some query are
    kept: those that are not below the k-th nearest in the block by more than float32 can be wrong. Of these rows,
    `cacl.evaluation.search.nearest` finds the nearest exactly, and of equals the earlier one.

    Args:
        queries: Finite floats [Q, F].
        blocks: The rows, block by block, finite float32 [n, F].
        k: The number of rows to find.

    Returns:
        The positions of the rows, int64 [min(k, rows)], the nearest first; which query each of them is most like, and
        the cosine with it, float32.
    """
    unit = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    # Products, lengths and quotient are wrong by at most 2 (F + 8) times 2^-24 together. Two cosines are compared.
    margin = 4 * (queries.shape[1] + 8) * 2.0**-24
    positions, candidates, first = [], [], 0
    for block in blocks:
        lengths = np.sqrt(np.einsum("nf,nf->n", block, block))
        cosines = block @ unit.T.astype(np.float32) / np.maximum(lengths, 1e-12)[:, None]  # [n, Q]
        bounds = np.partition(cosines, -min(k, len(block)), axis=0)[-min(k, len(block))] - margin
        chosen = np.flatnonzero((cosines >= bounds).any(1))
        positions.append(first + chosen)
        candidates.append(block[chosen])
        first += len(block)
    position, rows = np.concatenate(positions), np.concatenate(candidates)
    found, scores = nearest(queries, rows, k)  # [Q, k]
    # The k best of all queries together are among the k best of each. A row that several of them found counts once.
    order = np.lexsort((found.ravel(), -scores.ravel()))
    _, once = np.unique(found.ravel()[order], return_index=True)
    best = order[np.sort(once)][:k]
    return position[found.ravel()[best]], best // found.shape[1], scores.ravel()[best]


def _on_the_cpu_by_default(config: Config) -> Config:
    """Decodes a query by `cpu` where `auto` would first try backends on more clips than a query has."""
    return replace(config, {"loader.backend": "cpu"}, check_names=False) if config.loader.backend == "auto" else config


def _probe(query: Path, clip: ClipConfig) -> VideoRecord:
    """Decodes the query once, since nothing else tells what is in it."""
    try:
        video = probe(query)
    except DataError as error:
        raise DataError(f"{query}: {error}") from None
    except OSError as error:
        raise DataError(f"{query}: cannot be read ({reason_of(error)})") from None
    if video.frames < clip.frames:
        raise DataError(f"{query}: has {counted_frames(video.frames)}; a clip needs {clip.frames}")
    return dataclasses.replace(video, path=query.name)


def _stretch(query: Path, video: VideoRecord, from_seconds: float, to_seconds: float | None) -> tuple[int, int]:
    """Returns the first frame of a part of the query, and the frame behind its last."""
    length = video.frames / video.rate
    end = length if to_seconds is None else to_seconds
    if not 0 <= from_seconds < min(end, length) or end > length + 1 / video.rate:
        part = f"--from {from_seconds:g}" + ("" if to_seconds is None else f" --to {to_seconds:g}")
        raise UsageError(f"{query}: {part} is no part of this video, which lasts {length:.2f} seconds")
    first = min(round(from_seconds * video.rate), video.frames - 1)
    return first, min(max(first + 1, round(end * video.rate)), video.frames)


def _own_rows(table: pa.Table, root: str, query: Path, start_seconds: float, end_seconds: float) -> np.ndarray:
    """Returns which rows are of the query itself, and overlap its part in time: booleans [rows]."""
    if is_remote(root):
        return np.zeros(len(table), bool)
    file, real_root = os.path.realpath(query), os.path.realpath(root)
    names = {file, os.path.relpath(file, real_root)}
    same = np.array([path in names for path in table["path"].to_pylist()], bool)
    starts, ends = table["start_seconds"].to_numpy(), table["end_seconds"].to_numpy()
    return same & (starts < end_seconds) & (ends > start_seconds)
