"""The page of `cacl search --report`: what was found, beside the part of the query that it is like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from cacl import config as configuration
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import Config
from cacl.errors import DataError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.clip_loader import ClipLoader
from cacl.loaders.decode.probe import probe
from cacl.reports.page import write_page
from cacl.reports.previews import BATCH_SIZE, make_strip, strip_size
from cacl.search.index import ENCODER_NAME
from cacl.search.query import SearchResult


def write_search_page(result: SearchResult, folder: Path) -> Path:
    """Writes a page of the matches of a search, as looping previews.

    Args:
        result: What was found.
        folder: The folder of the page, which exists.

    Returns:
        The page. A match whose file is gone or damaged by now is named without a preview.

    Raises:
        DataError: The query cannot be decoded any more, or the page cannot be written.
        CheckpointError: The encoder of the index, which has its configuration, cannot be read.
    """
    config = EncoderWeights.read(Path(result.index, ENCODER_NAME)).config
    query = Path(result.query)
    alone = Catalog(
        root=query.absolute().parent,
        layout="",
        videos=(replace(probe(query), path=query.name),),
        rejected=(),
        missing=(),
    )
    queries = _strips(config, alone, {(query.name, match.query_start_seconds) for match in result.matches})
    found = _strips(config, _catalog(config, result.root), {(m.path, m.start_seconds) for m in result.matches})
    matches = [
        {
            "match": match,
            "query": queries.get((query.name, match.query_start_seconds)),
            "found": found.get((match.path, match.start_seconds)),
        }
        for match in result.matches
    ]
    return write_page(
        folder,
        "search.html",
        title=f"Like {query.name}",
        result=result,
        matches=matches,
        config=configuration.to_toml(config),
    )


def _catalog(config: Config, root: str) -> Catalog | None:
    """The videos of an index, or None if they are not there any more."""
    try:
        return scan(replace(config.data, root=root), min_frames=config.clip.frames)
    except DataError:
        return None


def _strips(
    config: Config, catalog: Catalog | None, spans: Collection[tuple[str, float]]
) -> Mapping[tuple[str, float], str]:
    """The strips of spans, each a path and the second at which the span begins, of those that can be loaded."""
    if catalog is None:
        return {}
    positions = {video.path: number for number, video in enumerate(catalog.videos)}
    wanted: defaultdict[int, list[tuple[str, float]]] = defaultdict(list)
    for path, seconds in sorted(spans):
        if path in positions:
            wanted[positions[path]].append((path, seconds))
    # Seconds are numbers of frames by the average rate.
    starts = {
        number: [round(seconds * catalog.videos[number].rate) for _, seconds in own] for number, own in wanted.items()
    }
    in_order = [span for own in wanted.values() for span in own]
    small = configuration.replace(
        config, {"clip.size": strip_size(len(in_order)), "loader.backend": "cpu"}, check_names=False
    )
    loader = ClipLoader.from_config(small, catalog=catalog, batch_size=BATCH_SIZE, split=None)
    return {
        in_order[index]: make_strip(clip)
        for batch in loader.clips_at(starts.items())
        for index, clip in zip(batch.index.tolist(), batch.views[0], strict=True)
    }
