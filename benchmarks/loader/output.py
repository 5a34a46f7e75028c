"""The table, the JSON file and the chart of `cacl bench-loader`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cacl.benchmarks.harness.output import Column, describe_machine, format_number, print_table, write_json
from cacl.benchmarks.loader.command import PACKAGES, LoaderBenchmark
from cacl.benchmarks.loader.contenders import BASELINE
from cacl.benchmarks.loader.run import LoaderResult, LoaderStats
from cacl.reporting import charts


def _from_stats(heading: str, cell: Callable[[LoaderStats], str]) -> Column[LoaderResult]:
    return Column(heading, lambda row: cell(row.stats) if row.stats else "")


COLUMNS: list[Column[LoaderResult]] = [
    Column("loader", lambda row: row.contender, numeric=False),
    Column("files", lambda row: row.files, numeric=False),
    Column("ratio", lambda row: format_number(row.ratio) if row.stats else "-"),
    _from_stats("clips/s", lambda stats: format_number(stats.clips_per_second.median)),
    _from_stats(
        "min..max",
        lambda stats: f"{format_number(stats.clips_per_second.min)}..{format_number(stats.clips_per_second.max)}",
    ),
    _from_stats("decoded\nframes/s", lambda stats: format_number(stats.decoded_frames_per_second)),
    _from_stats("cores", lambda stats: format_number(stats.cores)),
    _from_stats("core ms\nper clip", lambda stats: format_number(stats.core_ms_per_clip)),
    _from_stats("first\nbatch s", lambda stats: format_number(stats.first_batch_seconds)),
    _from_stats("wait for a\nbatch p50 ms", lambda stats: format_number(stats.wait_ms_p50)),
    _from_stats("\np99 ms", lambda stats: format_number(stats.wait_ms_p99)),
    _from_stats(
        "KiB read\nper clip",
        lambda stats: format_number(stats.bytes_read_per_clip and stats.bytes_read_per_clip / 1024),
    ),
]


def show(result: LoaderBenchmark) -> None:
    """Prints the result for people on stdout."""
    print_table(result.rows, COLUMNS)
    for name, description in {row.contender: row.description for row in result.rows}.items():
        print(f"{name}: {description}")
    for row in result.rows:
        if row.reason:
            print(f"{row.contender}, {row.files}: {row.reason}")
    dropped = sum(row.stats.dropped_clips for row in result.rows if row.stats)
    print(f"{dropped} clips dropped")
    for files, stages in result.stages.items():
        parts = ", ".join(f"{name} {format_number(ms)}" for name, ms in asdict(stages).items() if ms is not None)
        print(f"{BASELINE}, {files}, ms per clip in one thread: {parts}")
    known = result.to_json()
    for line in (*_describe_files(known), *_describe_settings(known), describe_machine(known["machine"], PACKAGES[1:])):
        print(line)


def save(result: LoaderBenchmark, folder: Path) -> None:
    """Writes bench_loader.json for programs, and bench_loader.png for people."""
    known = result.to_json()
    write_json(folder / "bench_loader.json", known)
    draw(known, folder / "bench_loader.png")


def draw(result: dict[str, Any], file: Path) -> None:
    """Draws the chart of a result, as bench_loader.json holds it."""
    kinds = list(result["files"])
    bars = []
    for row in result["rows"]:
        if row["reason"].startswith("skipped"):
            continue
        speed = row["stats"]["clips_per_second"] if row["stats"] else {}
        bars.append(charts.Bar(row["contender"], kinds.index(row["files"]), **speed, note=row["reason"]))
    charts.draw_bars(
        file,
        title="Clips per second, ready to train on",
        subtitle=_describe_settings(result),
        series=_describe_files(result),
        bars=bars,
        footnotes=[describe_machine(result["machine"], PACKAGES[1:])],
    )


def _describe_files(result: dict[str, Any]) -> list[str]:
    return [
        f"{files}: {about['videos']} videos, {', '.join(about['codecs'])}, {', '.join(about['sizes'])}, "
        f"{about['bytes'] / about['videos'] / 1024:.0f} KiB and {about['frames']['median']:.0f} frames each, "
        f"decoding can begin every {about['frames_between_seek_points']:.0f} frames"
        for files, about in result["files"].items()
    ]


def _describe_settings(result: dict[str, Any]) -> list[str]:
    settings, clip = result["settings"], result["settings"]["clip"]
    return [
        f"two views of {clip['frames']} frames of {clip['size']} x {clip['size']} in batches of "
        f"{settings['batch_size']}; {settings['threads']} threads or workers",
        f"median of {settings['repeats']} repeats in turn, each of {settings['clips']} clips; the range is from the "
        "slowest to the fastest",
    ]
