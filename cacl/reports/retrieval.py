"""The page of `cacl eval retrieval`: the scores, and the nearest videos of each query."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cacl import config as configuration
from cacl.config import Config
from cacl.evaluation.retrieval import TOP_K, FeatureScores, RetrievalTable
from cacl.evaluation.score_tables import interval_note, retrieval_scores
from cacl.reports.confusion import confusion_figure, frequent_confusions
from cacl.reports.figures import FAINT, SERIES, figure_names, new_figure, save_figure
from cacl.reports.page import printable, write_page
from cacl.reports.previews import MAX_STRIPS, video_strips

APART = 1.035
"""How many times as far to the right each curve stands as the one before, so that all intervals can be seen."""
BASELINE_STYLES = ("-", "^:", "v:", "D:")
"""The lines of chance and of the features that have learnt nothing, which have one colour."""


def write_retrieval_page(
    folder: Path,
    tables: Sequence[RetrievalTable],
    config: Config,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes the page of a retrieval, and its figures.

    Args:
        folder: The folder of the page, which exists.
        tables: What `evaluate_retrieval` returned.
        config: The configuration of the evaluation.
        on_progress: A function that is called with the number of previews that are done, and their total.

    Returns:
        The page.

    Raises:
        DataError: A file cannot be written.
    """
    first = tables[0]
    features = [name for name in first.scores if name.endswith(", trained")]
    shown, step = _choose_queries(first, features)
    videos = _videos_of(first, features, shown)
    strips = video_strips(config, first.catalog, videos, on_progress)
    by_panel = [(table, feature) for table in tables for feature in features]
    titles = [f"recall {table.label}" for table in tables]
    titles += [f"confusion {table.label} {feature}" for table, feature in by_panel]
    names = iter(figure_names(titles))
    return write_page(
        folder,
        "retrieval.html",
        title="Video retrieval",
        tables=[
            {
                "label": table.label,
                "scores": retrieval_scores(table),
                "figure": _recall_figure(folder, next(names), table),
            }
            for table in tables
        ],
        note=interval_note("the queries"),
        panels=[_panel(folder, name, *panel) for name, panel in zip(names, by_panel, strict=True)],
        data=_data(tables, features, shown, videos, strips),
        queries=first.num_queries,
        shown=len(shown),
        step=step,
        root=str(first.catalog.root),
        config=configuration.to_toml(config),
    )


def _by_query(table: RetrievalTable, feature: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a table has of each query by a feature: its scores, its nearest videos, and their similarities."""
    scores: FeatureScores = table.scores[feature]
    assert scores.of_queries is not None
    assert scores.neighbors is not None
    assert scores.similarities is not None
    return scores.of_queries, scores.neighbors, scores.similarities


def _choose_queries(table: RetrievalTable, features: Sequence[str]) -> tuple[np.ndarray, int]:
    """Chooses rows of queries, the worst first by the first feature: each n-th, for the least n that is possible."""
    order = _by_query(table, features[0])[0][:, -1].argsort(kind="stable")
    step = next(n for n in itertools.count(1) if len(_videos_of(table, features, order[::n])) <= MAX_STRIPS)
    return order[::step], step


def _videos_of(table: RetrievalTable, features: Sequence[str], rows: np.ndarray) -> list[int]:
    """The positions of these queries and their nearest videos in the catalog."""
    neighbors = [_by_query(table, feature)[1][rows].ravel() for feature in features]
    found = np.unique(np.concatenate([np.array(table.queries)[rows], *neighbors]))
    return found[found >= 0].tolist()


def _data(
    tables: Sequence[RetrievalTable],
    features: Sequence[str],
    rows: np.ndarray,
    videos: Sequence[int],
    strips: dict[int, str],
) -> dict[str, Any]:
    """What the script of the page makes cards of. Videos are called by their place in `videos`."""
    first, place = tables[0], {video: number for number, video in enumerate(videos)}
    nearest = {}
    for feature in features:
        _, neighbors, similarities = _by_query(first, feature)
        nearest[feature] = [
            [
                [place[video], round(similarity, 4)]
                for video, similarity in zip(neighbors[row].tolist(), similarities[row].tolist(), strict=True)
                if video >= 0
            ]
            for row in rows
        ]
    return {
        "paths": [printable(first.catalog.videos[video].path) for video in videos],
        "strips": [strips.get(video) for video in videos],
        "queries": [place[first.queries[row]] for row in rows],
        "labels": {table.label: [printable(table.labels[video]) for video in videos] for table in tables},
        "nearest": nearest,
        "panels": [{"label": table.label, "feature": feature} for table in tables for feature in features],
        "precisions": {
            table.label: {feature: _by_query(table, feature)[0][rows, -1].tolist() for feature in features}
            for table in tables
        },
    }


def _panel(folder: Path, name: str, table: RetrievalTable, feature: str) -> dict[str, Any]:
    """What the page says of one labelling and one feature."""
    _, neighbors, _ = _by_query(table, feature)
    found = [
        (table.labels[query], table.labels[int(row[0])]) for query, row in zip(table.queries, neighbors, strict=True)
    ]
    classes = sorted({*itertools.chain.from_iterable(found)})
    number_of = {label: number for number, label in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for label, nearest in found:
        counts[number_of[label], number_of[nearest]] += 1
    return {
        "name": f"{feature}, by {table.label}",
        "figure": confusion_figure(folder, name, counts, classes, "label of the query", "label of its nearest video"),
        "confusions": frequent_confusions(counts, classes),
    }


def _recall_figure(folder: Path, name: str, table: RetrievalTable) -> Markup:
    """Draws the recall of all features at k, with their intervals."""
    described = []
    colors, baselines = dict[str, str](), iter(BASELINE_STYLES * len(table.scores))
    with new_figure(7.2, 3.8) as (figure, axes):
        for number, (feature, scores) in enumerate(table.scores.items()):
            encoder, _, state = feature.rpartition(", ")
            color = FAINT if not encoder else colors.setdefault(encoder, SERIES[len(colors) % len(SERIES)])
            style = {"trained": "o-", "untrained": "s--"}.get(state) or next(baselines)
            recalls = [100 * value for value in scores.means[: len(TOP_K)]]
            bounds = 100 * np.array(scores.intervals or [(mean, mean) for mean in scores.means])[: len(TOP_K)].T
            errors = np.abs(bounds - recalls)
            places = np.array(TOP_K) * APART ** (number - len(table.scores) / 2)
            axes.errorbar(places, recalls, errors, fmt=style, color=color, markersize=4, elinewidth=0.8, label=feature)
            described.append(f"{feature} {recalls[0]:.1f}")
        axes.set(xscale="log", xlabel="k, nearest videos", ylabel="R@k in %", ylim=(0, 102))
        axes.set_xticks(TOP_K, [str(k) for k in TOP_K])
        axes.set_xticks([], minor=True)
        figure.legend(loc="outside right upper")
        alt = f"Recall at k by {table.label}, from 1 to {TOP_K[-1]}. R@1 in %: {'; '.join(described)}"
        return save_figure(figure, folder, name, alt)
