"""What a retrieval tells of each query, against a search by hand."""

import numpy as np
import torch

from cacl.evaluation.retrieval import NEIGHBORS, TOP_K, Fold, _scores


def test_neighbors_are_the_most_similar_of_the_other_groups() -> None:
    """The second gallery has fewer videos than neighbours are told. Videos are named by their place in the catalog."""
    features = np.random.default_rng(0).standard_normal((14, 6))
    labels = [f"{number % 3}" for number in range(14)]
    folds = [Fold([12, 3], [0, 2, 4, 5, 6, 7, 13]), Fold([0, 13, 5], [1, 9, 11])]
    scores = _scores(labels, {"noise": features}, folds, 0, torch.device("cpu"))
    found = scores["noise"]
    assert found.neighbors is not None
    assert found.similarities is not None
    assert found.of_queries is not None
    assert scores["chance"].neighbors is None
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    number = 0
    for fold in folds:
        for query in fold.queries:
            nearest = sorted(fold.gallery, key=lambda video: -(rows[query] @ rows[video]))
            told = min(NEIGHBORS, len(nearest))
            assert found.neighbors[number].tolist() == nearest[:told] + [-1] * (NEIGHBORS - told)
            np.testing.assert_allclose(found.similarities[number, :told], rows[nearest[:told]] @ rows[query], rtol=1e-6)
            assert np.isnan(found.similarities[number, told:]).all()
            hits = [labels[query] in {labels[video] for video in nearest[:k]} for k in TOP_K]
            assert found.of_queries[number, : len(TOP_K)].tolist() == hits
            number += 1
    assert number == len(found.neighbors) == 5
