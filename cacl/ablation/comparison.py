"""What came of an ablation: means over seeds, their spread, and differences that are paired by seed and video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cacl.ablation.rows import UNTRAINED_ROW
from cacl.evaluation.feature_points import TRAINED, UNTRAINED
from cacl.evaluation.metrics import CONFIDENCE, RESAMPLES, bootstrap_interval
from cacl.evaluation.retrieval import SCORES, FeatureScores, RetrievalTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Scores with several seeds. Each array is float64 [len(SCORES)]."""

    mean: np.ndarray
    deviation: np.ndarray | None
    """The sample standard deviation over the seeds. With one seed there is none."""
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Computes the spread of float64 [S, len(SCORES)], one row for each of S seeds."""
        return cls(
            mean=values.mean(0),
            deviation=values.std(0, ddof=1) if len(values) > 1 else None,
            lowest=values.min(0),
            highest=values.max(0),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the spread as values that JSON can hold."""
        return {
            "mean": by_score(self.mean),
            "deviation": None if self.deviation is None else by_score(self.deviation),
            "min": by_score(self.lowest),
            "max": by_score(self.highest),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """The difference of a row to the reference, over the pairs of a seed and a query video that both rows have."""

    seeds: tuple[int, ...]
    """The seeds with which both rows were trained."""
    spread: Spread
    """The mean differences with each seed."""
    low: np.ndarray
    """float64 [len(SCORES)]: the lower ends of the intervals of the mean differences, by the bootstrap over the videos
    with the seeds averaged. They tell what the choice of the videos may do, and nothing of other seeds."""
    high: np.ndarray
    """The upper ends."""

    def to_json(self) -> dict[str, Any]:
        """Returns the difference as values that JSON can hold."""
        intervals = {
            score: list(ends) for score, *ends in zip(SCORES, self.low.tolist(), self.high.tolist(), strict=True)
        }
        return {"seeds": list(self.seeds), **self.spread.to_json(), "interval": intervals}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The scores of one feature of one row."""

    row: str
    """The name of the row, `untrained`, or that of a baseline."""
    feature: str
    """The feature of the encoders, such as `cnn`; "" for a baseline."""
    by_seed: dict[int, list[float]]
    """The scores by seed, in the order of `SCORES`."""
    spread: Spread
    difference: PairedDifference | None
    """The difference to the same feature of the reference. None for the reference itself, and where the two have no
    seed in common."""

    def to_json(self) -> dict[str, Any]:
        """Returns the cell as values that JSON can hold."""
        return {
            "row": self.row,
            "feature": self.feature,
            "by_seed": {str(seed): by_score(means) for seed, means in self.by_seed.items()},
            **self.spread.to_json(),
            "difference": self.difference.to_json() if self.difference else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonTable:
    """The scores of all rows, with the videos labelled in one way."""

    label: str
    num_classes: int
    num_queries: int
    cells: tuple[Cell, ...]
    """The baselines, the untrained encoders, and then the rows. What a row does not train has no cell."""

    def to_json(self) -> dict[str, Any]:
        """Returns the table as values that JSON can hold."""
        return {
            "label": self.label,
            "classes": self.num_classes,
            "queries": self.num_queries,
            "cells": [cell.to_json() for cell in self.cells],
            "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE},
        }


def compare(
    tables: Mapping[tuple[str, int], RetrievalTable], rows: Sequence[str], reference: str, draws_seed: int
) -> ComparisonTable:
    """Compares rows that were judged by the same videos and the same labels.

    Args:
        tables: The results by row and seed. Those that are missing are left out.
        rows: The names of the rows in their order.
        reference: The name of the row that the others are compared with.
        draws_seed: The seed of the bootstrap.

    Returns:
        The table. The untrained encoders and the baselines are those of the reference, and those of another row where
        the reference has none.
    """
    found: dict[tuple[str, str], dict[int, FeatureScores]] = {}
    baselines: dict[tuple[str, str], dict[int, FeatureScores]] = {}
    for row in sorted(rows, key=lambda row: row != reference):
        for (_, seed), table in ((key, table) for key, table in tables.items() if key[0] == row):
            for name, scores in table.scores.items():
                if name.endswith(TRAINED):
                    found.setdefault((row, name.removesuffix(TRAINED)), {})[seed] = scores
                else:
                    feature = name.removesuffix(UNTRAINED)
                    key = (UNTRAINED_ROW, feature) if feature != name else (name, "")
                    baselines.setdefault(key, {}).setdefault(seed, scores)
    in_order = dict(sorted(baselines.items(), key=lambda item: item[0][0] == UNTRAINED_ROW))
    in_order |= {key: found[key] for row in rows for key in found if key[0] == row}
    any_table = next(iter(tables.values()))
    return ComparisonTable(
        label=any_table.label,
        num_classes=any_table.num_classes,
        num_queries=any_table.num_queries,
        cells=tuple(
            _make_cell(row, feature, scores, found.get((reference, feature), {}), row == reference, draws_seed)
            for (row, feature), scores in in_order.items()
        ),
    )


def _make_cell(
    row: str,
    feature: str,
    scores: Mapping[int, FeatureScores],
    reference: Mapping[int, FeatureScores],
    is_reference: bool,
    draws_seed: int,
) -> Cell:
    by_seed = {seed: scores[seed].means for seed in sorted(scores)}
    return Cell(
        row=row,
        feature=feature,
        by_seed=by_seed,
        spread=Spread.of(np.array(list(by_seed.values()))),
        difference=None if is_reference else paired_difference(_by_query(scores), _by_query(reference), draws_seed),
    )


def _by_query(scores: Mapping[int, FeatureScores]) -> dict[int, np.ndarray]:
    return {seed: found.of_queries for seed, found in scores.items() if found.of_queries is not None}


def paired_difference(
    row: Mapping[int, np.ndarray], reference: Mapping[int, np.ndarray], draws_seed: int
) -> PairedDifference | None:
    """Computes the mean difference of two rows over all pairs of a seed and a query video.

    Args:
        row: The scores of the queries by seed, each float64 [Q, len(SCORES)].
        reference: Those of the reference, with the same queries.
        draws_seed: The seed of the bootstrap over the Q queries, whose differences are averaged over the seeds before.

    Returns:
        The difference, or None if the two have no seed in common.
    """
    seeds = tuple(sorted(row.keys() & reference.keys()))
    if not seeds:
        return None
    differences = np.stack([row[seed] - reference[seed] for seed in seeds])  # [S, Q, len(SCORES)]
    low, high = bootstrap_interval(differences.mean(0), draws_seed)
    return PairedDifference(seeds=seeds, spread=Spread.of(differences.mean(1)), low=low, high=high)


def by_score(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Returns scores by name, as JSON has them."""
    return dict(zip(SCORES, map(float, values), strict=True))
