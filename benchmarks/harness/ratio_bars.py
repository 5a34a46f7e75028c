"""The bars of a chart that shows times relative to those of the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cacl.benchmarks.harness.output import format_number
from cacl.benchmarks.harness.stats import Spread, ratios
from cacl.reporting import charts


def ratio_bars(
    rows: Sequence[dict[str, Any]], baseline: str, describe: Callable[[dict[str, Any]], str]
) -> list[charts.Bar]:
    """Makes a bar of each contender: the median and the range of its times, repeat by repeat over the baseline's.

    Args:
        rows: The contenders as the JSON file holds them, the baseline first.
        baseline: The name of the baseline, which has another colour.
        describe: What stands behind the ratio in brackets, from the `stats` of a row.

    Returns:
        The bars. Contenders that were skipped have none, and those that failed have one of no length, with the reason.
    """
    bars, ours = [], rows[0]["stats"]
    for row in rows:
        name, series, stats = row["contender"], int(row["contender"] == baseline), row["stats"]
        if stats and ours:
            spread = Spread.of(ratios(stats["each_seconds"], ours["each_seconds"]))
            note = f"{format_number(spread.median)} ({describe(stats)})"
            bars.append(charts.Bar(name, series, spread.median, spread.min, spread.max, note))
        elif not row["reason"].startswith("skipped"):
            bars.append(charts.Bar(name, series, note=row["reason"] or "nothing to compare it with"))
    return bars
