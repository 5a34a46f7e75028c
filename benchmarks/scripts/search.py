"""How long does an exact search of a large gallery take, beside faiss, and how much memory does it need?

    python benchmarks/scripts/search.py > search.json

The script writes a gallery of one million random features of 512 dimensions to a file (2 GB, in the folder for
temporary files), maps it into memory, and finds the 50 nearest of each of 10,000 queries: by
`cacl.evaluation.search.nearest`, and by the flat index of faiss where `faiss-cpu` is installed. faiss holds the gallery
in memory once more. Both take the same number of threads, and turns. `equal` is the share of positions at which both
have the same row: faiss computes in float32, and takes some of them in another order. Then the average precisions of
the first 128 queries are computed once, which sort the whole gallery. Memory is what the process holds beyond what was
there before, without the pages of the file: the peak of `RssAnon`, looked at every 50 ms.
JSON goes to stdout, and a table to stderr. All of it takes about ten minutes on two cores, which should have nothing
else to do; `--gallery 100000 --queries 2000` take less.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cacl.benchmarks.harness import machine
from cacl.benchmarks.harness.stats import Spread, ratios
from cacl.evaluation.metrics import average_precisions
from cacl.evaluation.search import nearest

PACKAGES = ("cacl", "torch", "numpy", "faiss-cpu")
CHUNK = 10_000
K = 50
SORTING_QUERIES = 128
"""The number of queries whose average precisions are computed."""
CLASSES = 100

Search = Callable[[np.ndarray], np.ndarray]
"""Takes queries and returns the positions of the nearest, [Q, K], or a score of each query."""


def write_gallery(path: Path, rows: int, width: int) -> np.ndarray:
    """Writes random rows of length 1 to a file, and maps it into memory."""
    rng = np.random.default_rng(0)
    gallery = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    for start in range(0, rows, CHUNK):
        gallery[start : start + CHUNK] = random_rows(rng, min(CHUNK, rows - start), width)
    gallery.flush()
    return np.load(path, mmap_mode="r")


def random_rows(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Returns float32 [rows, width] of length 1."""
    x = rng.standard_normal((rows, width), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def faiss_search(gallery: np.ndarray, threads: int) -> Search:
    """Fills a flat index, which is not timed."""
    import faiss  # pyright: ignore[reportMissingImports]

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(gallery.shape[1])
    for start in range(0, len(gallery), CHUNK):
        index.add(np.array(gallery[start : start + CHUNK]))
    return lambda queries: index.search(queries, K)[1]


def precision_search(gallery: np.ndarray) -> Search:
    """Gives the gallery random classes, and the queries, too."""
    labels = [str(number) for number in np.random.default_rng(2).integers(0, CLASSES, len(gallery))]
    return lambda queries: average_precisions(queries, gallery, labels[: len(queries)], labels)


def anonymous_mib() -> float:
    """The memory of this process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def measure(search: Search, queries: np.ndarray) -> dict[str, float]:
    """The seconds of one search, and by how many MiB it raises the memory of the process at its peak."""
    before, peak, ended = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    search(queries)
    seconds = time.perf_counter() - started
    ended.set()
    watcher.join()
    return {"seconds": seconds, "mib": max(0.0, peak[0] - before)}


def run(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures both in turn."""
    threads = torch.get_num_threads()
    gallery = write_gallery(folder / "gallery.npy", given.gallery, given.width)
    queries = random_rows(np.random.default_rng(1), given.queries, given.width)
    searches: dict[str, Search] = {"cacl": lambda queries: nearest(queries, gallery, K)[0]}
    agreement = None
    if find_spec("faiss"):
        searches["faiss"] = faiss_search(gallery, threads)
        agreement = float((searches["cacl"](queries[:1000]) == searches["faiss"](queries[:1000])).mean())
    else:
        print("faiss is not installed (pip install faiss-cpu): cacl alone is measured", file=sys.stderr)
    rows = [{name: measure(search, queries) for name, search in searches.items()} for _ in range(given.repeats)]
    result: dict[str, Any] = {
        "machine": machine.describe(PACKAGES),
        "threads": threads,
        "gallery": given.gallery,
        "queries": given.queries,
        "width": given.width,
        "k": K,
        "equal_to_faiss": agreement,
    }
    for unit in ("seconds", "mib"):
        each = {name: [row[name][unit] for row in rows] for name in searches}
        result[unit] = {name: asdict(Spread.of(values)) | {"each": values} for name, values in each.items()}
    sorting = queries[:SORTING_QUERIES]
    result["average_precisions"] = {"queries": len(sorting)} | measure(precision_search(gallery), sorting)
    if "faiss" in searches:
        times = [[row[name]["seconds"] for row in rows] for name in ("cacl", "faiss")]
        result["seconds cacl / faiss"] = asdict(Spread.of(ratios(*times)))
    return result


def main() -> None:
    """Measures, and prints JSON on stdout and a table on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(given, Path(folder))
    for name, seconds in result["seconds"].items():
        print(f"{name:6} {seconds['median']:8.1f} s  {result['mib'][name]['max']:7.0f} MiB", file=sys.stderr)
    found = result["average_precisions"]
    print(f"mAP    {found['seconds']:8.1f} s  {found['mib']:7.0f} MiB  {found['queries']} queries", file=sys.stderr)
    if "seconds cacl / faiss" in result:
        ratio = result["seconds cacl / faiss"]
        print(f"ratio  {ratio['median']:8.2f}  ({ratio['min']:.2f} to {ratio['max']:.2f})", file=sys.stderr)
        print(f"equal  {result['equal_to_faiss']:8.6f}", file=sys.stderr)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
