"""Scores as people read them, in a terminal and on a page alike: a title, the names of columns, and rows of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cacl.evaluation.finetuned import FinetunedTable
from cacl.evaluation.metrics import CONFIDENCE, RESAMPLES
from cacl.evaluation.recognition import CLASSIFIERS, Classification, RecognitionTable
from cacl.evaluation.retrieval import SCORES, RetrievalTable
from cacl.evaluation.videos import SPLIT_NAMES

INTERVAL = f"{CONFIDENCE:.0%}"
"""The name of a column of intervals."""


class ScoreTable(NamedTuple):
    """A table of scores in %."""

    title: str
    """What was evaluated, in one line."""
    remark: str
    """More of it in another line, or nothing."""
    header: list[str]
    """The names of the columns."""
    rows: list[list[str]]
    """The cells of each row, with the name of a feature first."""


def interval_note(drawn: str) -> str:
    """Returns the line that tells what the numbers are.

    Args:
        drawn: What the bootstrap draws, such as `the queries`.
    """
    return f"in %; {INTERVAL}: intervals by {RESAMPLES} bootstrap samples of {drawn}"


def retrieval_scores(table: RetrievalTable) -> ScoreTable:
    """Returns the scores of a retrieval."""
    if table.query_split:
        queried = f"videos of {table.gallery}," if table.gallery else "training videos"
        who = f"{table.num_queries} {SPLIT_NAMES[table.query_split]} videos query {table.num_gallery} {queried}"
    else:
        who = f"{table.num_queries} videos in {table.num_folds} groups by {table.groups} query the other groups,"
    rows = []
    for name, scores in table.scores.items():
        values = [f"{100 * value:.1f}" for value in scores.means]
        first, last = ("", "") if scores.intervals is None else map(_interval, scores.intervals[:: len(SCORES) - 1])
        rows.append([name, values[0], first, *values[1:], last])
    # The first score and the last one have intervals beside them.
    header = ["feature", SCORES[0], INTERVAL, *SCORES[1:], INTERVAL]
    return ScoreTable(f"retrieval by {table.label}: {who} of {table.num_classes} classes", "", header, rows)


def recognition_scores(table: RecognitionTable | FinetunedTable) -> ScoreTable:
    """Returns the accuracies of a classifier on frozen features, or of a fine-tuned network."""
    return _of_network(table) if isinstance(table, FinetunedTable) else _of_features(table)


def _of_network(table: FinetunedTable) -> ScoreTable:
    crops = "three crops" if table.crops == 3 else "the centre crop"
    chance = 1 / len(table.classes)
    rows = [["chance", _percent(chance), "", _percent(min(1, 5 * chance)), _percent(chance)]]
    return ScoreTable(
        f"fine-tuned {table.encoder} by {table.label}: {table.num_videos} {SPLIT_NAMES[table.split]} videos of "
        f"{len(table.classes)} classes",
        f"after step {table.step}, mean {table.average} of {table.clips_per_video} clips in {crops}",
        ["classifier", "top-1", INTERVAL, "top-5", "mean per class"],
        rows + [[name, *_accuracies(result)] for name, result in table.results.items()],
    )


def _of_features(table: RecognitionTable) -> ScoreTable:
    if table.validation_is_drawn:
        chosen_on = f"{table.num_validation} of the {table.num_train + table.num_validation} training videos"
    else:
        chosen_on = f"{table.num_validation} validation videos beside {table.num_train} training videos"
    top1, top5 = map(_percent, table.chance)
    rows = [["chance", top1, "", top5, top1, ""]]
    for name, (setting, _, result) in table.results.items():
        rows.append([name, *_accuracies(result), _setting(setting)])
    return ScoreTable(
        f"{CLASSIFIERS[table.classifier].title} by {table.label}: {table.num_test} {SPLIT_NAMES[table.split]} "
        f"videos of {len(table.classes)} classes",
        f"settings chosen on {chosen_on}, which it then learns from, too",
        ["feature", "top-1", INTERVAL, "top-5", "mean per class", "setting"],
        rows,
    )


def _accuracies(result: Classification) -> list[str]:
    others = map(_percent, (result.top5, result.mean_per_class))
    return [_percent(result.top1), _interval(result.top1_interval), *others]


def _setting(setting: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in setting.items())


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f}"
