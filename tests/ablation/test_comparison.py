"""Means, spreads and paired differences against loops over lists."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from cacl.ablation.comparison import compare, paired_difference
from cacl.ablation.rows import UNTRAINED_ROW
from cacl.evaluation.metrics import RESAMPLES
from cacl.evaluation.retrieval import SCORES, FeatureScores, RetrievalTable
from cacl.loaders.catalog.catalog import Catalog

QUERIES = 23


def scores_of(seed: int, *, queries: int = QUERIES) -> np.ndarray:
    """Returns scores as a retrieval has them: hits that only rise with k, and average precisions."""
    rng = np.random.default_rng(seed)
    hits = np.maximum.accumulate(rng.random((queries, len(SCORES) - 1)) < 0.3, axis=1)
    return np.column_stack([hits, rng.random(queries)])


def draws(count: int) -> list[list[int]]:
    """Returns what each resample of the bootstrap with seed 5 draws, in Python's own integers."""
    bits = np.random.Philox(key=5)
    return [[(int(word) >> 32) * count >> 32 for word in bits.random_raw(count)] for _ in range(RESAMPLES)]


def quantile(values: list[float], share: float) -> float:
    values, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def test_paired_differences_against_loops() -> None:
    row = {seed: scores_of(seed) for seed in (3, 0, 7)}
    reference = {seed: scores_of(100 + seed) for seed in (0, 1, 3)}
    found = paired_difference(row, reference, draws_seed=5)
    assert found is not None
    assert found.seeds == (0, 3)  # the seeds that both have
    drawn = draws(QUERIES)
    for place in range(len(SCORES)):
        of_seeds = [
            [float(row[seed][video, place] - reference[seed][video, place]) for video in range(QUERIES)]
            for seed in (0, 3)
        ]
        of_videos = [statistics.fmean(pair) for pair in zip(*of_seeds, strict=True)]
        resampled = [statistics.fmean(of_videos[video] for video in videos) for videos in drawn]
        means = [statistics.fmean(differences) for differences in of_seeds]
        assert found.spread.mean[place] == pytest.approx(statistics.fmean(of_videos))
        assert found.spread.deviation is not None
        assert found.spread.deviation[place] == pytest.approx(statistics.stdev(means))
        assert (found.spread.lowest[place], found.spread.highest[place]) == pytest.approx((min(means), max(means)))
        assert found.low[place] == pytest.approx(quantile(resampled, 0.025))
        assert found.high[place] == pytest.approx(quantile(resampled, 0.975))


def test_pairs_tell_more_than_two_rows_by_themselves() -> None:
    """Where one row is better by the same amount for every video, nothing depends on the choice of the videos."""
    reference = {0: scores_of(0) / 2}
    found = paired_difference({0: reference[0] + 0.25}, reference, draws_seed=0)
    assert found is not None
    np.testing.assert_allclose(found.low, 0.25)
    np.testing.assert_allclose(found.high, 0.25)


def test_without_a_common_seed_there_is_no_difference() -> None:
    assert paired_difference({0: scores_of(0)}, {1: scores_of(1)}, draws_seed=0) is None


def table(**features: np.ndarray) -> RetrievalTable:
    """Makes a table of features, whose names have _ for what stands between their words, and of chance."""
    chance = FeatureScores(means=[0.5] * len(SCORES), intervals=None, by_class=None)
    named = {name.replace("__", ", ").replace("_", " "): values for name, values in features.items()}
    return RetrievalTable(
        label="label",
        num_classes=4,
        query_split="val",
        groups=None,
        gallery=None,
        num_folds=1,
        num_gallery=9,
        scores={"chance": chance}
        | {
            name: FeatureScores(means=values.mean(0).tolist(), intervals=[], by_class={}, of_queries=values)
            for name, values in named.items()
        },
        catalog=Catalog(root=Path(), layout="list", videos=(), rejected=(), missing=()),
        labels=(),
        queries=range(QUERIES),
    )


def test_rows_have_cells_for_what_they_train_and_the_reference_lends_the_baselines() -> None:
    same, untrained = scores_of(50), {seed: scores_of(60 + seed) for seed in (0, 1)}
    cnn = {(row, seed): scores_of(number) for number, (row, seed) in enumerate([("a", 0), ("a", 1), ("all", 0)])}
    transformer = scores_of(40)
    tables = {
        ("a", 0): table(mean_frame=same, cnn__untrained=untrained[0], cnn__trained=cnn["a", 0]),
        ("a", 1): table(mean_frame=same, cnn__untrained=untrained[1], cnn__trained=cnn["a", 1]),
        ("all", 0): table(
            mean_frame=same,
            cnn__untrained=scores_of(70),
            cnn__trained=cnn["all", 0],
            transformer__untrained=scores_of(80),
            transformer__trained=transformer,
        ),
    }
    found = compare(tables, ["a", "all"], "all", draws_seed=5)
    cells = {(cell.row, cell.feature): cell for cell in found.cells}
    assert list(cells) == [
        ("chance", ""),
        ("mean frame", ""),
        (UNTRAINED_ROW, "cnn"),
        (UNTRAINED_ROW, "transformer"),
        ("a", "cnn"),
        ("all", "cnn"),
        ("all", "transformer"),
    ]
    both, alone = cells["a", "cnn"], cells["all", "cnn"]
    assert list(both.by_seed) == [0, 1]
    np.testing.assert_allclose(both.spread.mean, (cnn["a", 0].mean(0) + cnn["a", 1].mean(0)) / 2)
    assert alone.spread.deviation is None  # one seed
    assert alone.difference is None  # the reference itself
    assert both.difference is not None
    assert both.difference.seeds == (0,)
    np.testing.assert_allclose(both.difference.spread.mean, (cnn["a", 0] - cnn["all", 0]).mean(0))
    assert both.difference.spread.deviation is None
    beside = cells[UNTRAINED_ROW, "cnn"]
    assert beside.by_seed[0] == scores_of(70).mean(0).tolist()  # of the reference
    assert beside.by_seed[1] == untrained[1].mean(0).tolist()  # which was not trained with this seed
    assert beside.difference is not None
    assert beside.difference.seeds == (0,)
    assert cells["mean frame", ""].difference is None
