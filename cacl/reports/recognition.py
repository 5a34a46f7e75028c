"""The page of `cacl eval recognition`: accuracies, confusions, and what is classified wrongly with most confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cacl import config as configuration
from cacl.config import Config
from cacl.evaluation.finetuned import FinetunedTable
from cacl.evaluation.recognition import CLASSIFIERS, Classification, RecognitionTable
from cacl.evaluation.score_tables import interval_note, recognition_scores
from cacl.reports.confusion import confusion_figure, frequent_confusions
from cacl.reports.figures import figure_names
from cacl.reports.page import write_page
from cacl.reports.previews import video_strips

MISTAKES = 24
"""The number of mistakes that are shown of each classification."""


class Panel(NamedTuple):
    """What a classifier makes of a feature."""

    name: str
    table: RecognitionTable | FinetunedTable
    result: Classification
    mistakes: list[int]
    """Which videos are shown as mistakes: positions in the catalog of the table."""


def write_recognition_page(
    folder: Path,
    tables: Sequence[RecognitionTable | FinetunedTable],
    config: Config,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes the page of a recognition, and its figures.

    Args:
        folder: The folder of the page, which exists.
        tables: What `evaluate_recognition` returned, or `evaluate_finetuned`; all of the same videos.
        config: The configuration of the evaluation.
        on_progress: A function that is called with the number of previews that are done, and their total.

    Returns:
        The page.

    Raises:
        DataError: A file cannot be written.
    """
    catalog = tables[0].catalog
    panels = [panel for table in tables for panel in _panels(table)]
    videos = sorted({video for panel in panels for video in panel.mistakes})
    strips = video_strips(config, catalog, videos, on_progress)
    names = figure_names(f"confusion {panel.name}" for panel in panels)
    return write_page(
        folder,
        "recognition.html",
        title="Action recognition",
        scores=[recognition_scores(table) for table in tables],
        note=interval_note("the videos that are classified"),
        panels=[_described(folder, name, panel, strips) for name, panel in zip(names, panels, strict=True)],
        most=MISTAKES,
        root=str(catalog.root),
        config=configuration.to_toml(config),
    )


def _panels(table: RecognitionTable | FinetunedTable) -> list[Panel]:
    """The network, or the classifier on each trained feature."""
    if isinstance(table, FinetunedTable):
        found = {f"fine-tuned {table.encoder} by {table.label}": table.results["fine-tuned"]}
    else:
        title = CLASSIFIERS[table.classifier].title
        found = {
            f"{title} by {table.label}: {name}": result.classification
            for name, result in table.results.items()
            if name.endswith(", trained")
        }
    return [Panel(name, table, result, _mistakes(table, result)) for name, result in found.items()]


def _mistakes(table: RecognitionTable | FinetunedTable, result: Classification) -> list[int]:
    """The videos that are classified wrongly, the most confident ones first, at most `MISTAKES`."""
    labels = np.array([video.label_in(table.label) for video in table.catalog.videos])
    wrong = np.flatnonzero(np.array(table.classes)[result.guesses] != labels)
    return wrong[(-result.confidences[wrong]).argsort(kind="stable")][:MISTAKES].tolist()


def _described(folder: Path, figure_name: str, panel: Panel, strips: dict[int, str]) -> dict[str, Any]:
    """What the page says of a panel."""
    name, table, result, mistakes = panel
    totals, videos = result.confusion.sum(1), table.catalog.videos
    per_class = [
        (label, total, result.per_class[label])
        for label, total in zip(table.classes, totals.tolist(), strict=True)
        if total
    ]
    return {
        "name": name,
        "figure": confusion_figure(folder, figure_name, result.confusion, table.classes, "true class", "guessed class"),
        "confusions": frequent_confusions(result.confusion, table.classes),
        "per_class": sorted(per_class, key=lambda row: (row[2], row[0])),
        "wrong": int(totals.sum() - np.trace(result.confusion)),
        "videos": int(totals.sum()),
        "mistakes": [
            {
                "path": videos[video].path,
                "true_class": videos[video].label_in(table.label),
                "guess": table.classes[result.guesses[video]],
                "confidence": float(result.confidences[video]),
                "strip": strips.get(video),
            }
            for video in mistakes
        ],
    }
