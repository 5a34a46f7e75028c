"""How long does `cacl search` take in a large index, and does it find what NumPy finds in float64?

    python benchmarks/scripts/search_index.py INDEX --spans 100000 > search_index.json
    cacl search INDEX some_video.mp4

The script makes the folder INDEX: an untrained R3D-18 and random features of 512 dimensions, 20 spans for each video,
those of a video alike (207 MB for 100,000 spans). Then it reads the features alone, and searches, each several times.
What the search finds is compared with NumPy in float64, and must be equal.
With `--usearch`, it builds an approximate index of the same features, too (one minute for 100,000 spans).
JSON goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cacl.benchmarks.harness import machine
from cacl.checkpoints.encoders import EncoderWeights
from cacl.config import from_dict
from cacl.registry import ENCODERS
from cacl.search.index import ENCODER_NAME, IndexFolder, IndexHeader, IndexSettings
from cacl.search.query import nearest_spans

PACKAGES = ("cacl", "torch", "numpy", "pyarrow", "usearch")
SPANS_PER_VIDEO, VIDEOS_PER_PART, TOP = 20, 5000, 10
SPAN_SECONDS = 1.28
"""The length of a span of 16 frames with a stride of 2, at 25 frames a second."""


def make_index(folder: Path, spans: int) -> IndexFolder:
    """Makes the index, unless it is there."""
    index = IndexFolder(folder)
    if index.whole:
        assert len(index.whole) == spans, f"{folder} has {len(index.whole)} spans: name another folder"
        return index
    folder.mkdir(parents=True)
    config = from_dict({"model": {"cnn": "r3d18"}})
    tensors = {f"cnn.{name}": x for name, x in ENCODERS.load("r3d18")(config).state_dict().items()}
    weights = EncoderWeights(source="untrained", config=config, step=0, tensors=tensors)
    weights.save(folder / ENCODER_NAME)
    settings = IndexSettings.of(config, "cnn", weights.digest, None)
    header = IndexHeader(root="/videos", settings=settings, backend="cpu")
    rng = np.random.default_rng(0)
    contents: dict[str, str] = {}
    for first in range(0, spans // SPANS_PER_VIDEO, VIDEOS_PER_PART):
        numbers = range(first, min(first + VIDEOS_PER_PART, spans // SPANS_PER_VIDEO))
        index.add_part(part(header, numbers, rng))
        contents |= {path(number): f"{number:032x}" for number in numbers}
    index.finish(header, contents)
    return index


def path(number: int) -> str:
    """The path of a video."""
    return f"some/folder/video_{number:07}.mp4"


def part(header: IndexHeader, numbers: range, rng: np.random.Generator) -> pa.Table:
    """The rows of some videos."""
    videos, dimensions = len(numbers), 512
    own = rng.standard_normal((videos, 1, dimensions), np.float32)
    features = own + 0.5 * rng.standard_normal((videos, SPANS_PER_VIDEO, dimensions), np.float32)
    schema = header.schema(dimensions)
    steps = np.tile(np.arange(SPANS_PER_VIDEO), videos)
    columns = [
        [path(number) for number in numbers for _ in range(SPANS_PER_VIDEO)],
        [f"{number:032x}" for number in numbers for _ in range(SPANS_PER_VIDEO)],
        32 * steps,
        SPAN_SECONDS * steps,
        SPAN_SECONDS * (steps + 1),
        pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), type=schema.field("feature").type),
    ]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def seconds(call: Any, repeats: int) -> list[float]:
    """How long a call takes each time."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def usearch_rows(features: np.ndarray, queries: np.ndarray, best: np.ndarray) -> dict[str, Any]:
    """Builds an HNSW graph with the settings of usearch, and searches it for one query after the other."""
    from usearch.index import Index  # pyright: ignore[reportMissingImports]

    graph = Index(ndim=features.shape[1], metric="cos", dtype="f32")
    built = seconds(lambda: graph.add(np.arange(len(features)), features), 1)
    found = [graph.search(query, TOP).keys for query in queries]
    searched = [seconds(lambda query=query: graph.search(query, TOP), 1)[0] for query in queries]
    shared = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found, best.tolist(), strict=True)])
    return {"build_seconds": built[0], "search_seconds": float(np.median(searched)), "recall": float(shared)}


def main() -> None:
    """Makes the index, measures, and prints JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--usearch", action="store_true")
    given = parser.parse_args()
    spans = make_index(given.index, given.spans).whole
    assert spans

    features = np.concatenate(list(spans.features()))
    rng = np.random.default_rng(1)
    chosen = features[rng.choice(len(features), given.queries, replace=False)]
    queries = chosen + 0.1 * rng.standard_normal(chosen.shape, np.float32)
    lengths = np.sqrt(np.einsum("nf,nf->n", features, features, dtype=np.float64))
    best = []
    for query in queries:
        cosines = np.einsum("nf,f->n", features, query, dtype=np.float64) / lengths
        best.append(np.argsort(-cosines, kind="stable")[:TOP])
        found, _, _ = nearest_spans(query[None], spans.features(), TOP)
        assert found.tolist() == best[-1].tolist(), "the search does not find what NumPy finds"
    result: dict[str, Any] = {
        "machine": machine.describe(PACKAGES),
        "spans": len(spans),
        "queries_equal_to_float64": len(queries),
        "read_seconds": seconds(lambda: list(map(len, spans.features())), given.repeats),
        "read_and_search_seconds": seconds(lambda: nearest_spans(queries[:1], spans.features(), TOP), given.repeats),
    }
    if given.usearch:
        result["usearch"] = usearch_rows(features, queries, np.array(best))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
