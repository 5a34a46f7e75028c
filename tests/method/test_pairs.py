"""The choices of pairs speak of embeddings that exist."""

from __future__ import annotations

import pytest

from cacl.method.pairs import encoders_in
from cacl.registry import PAIRS


def test_pairs_are_made_of_known_embeddings_and_begin_with_a_query() -> None:
    for pair in (pair for name in PAIRS.names() for pair in PAIRS.load(name)):
        assert {embedding.encoder for embedding in pair} <= {"cnn", "transformer"}
        assert {embedding.side for embedding in pair} <= {"query", "key"}
        assert pair.anchor.side == pair.queue_anchor.side == "query"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("cross", ("cnn", "transformer")),
        ("official", ("cnn", "transformer")),
        ("within", ("cnn", "transformer")),
        ("cnn", ("cnn",)),
        ("transformer", ("transformer",)),
    ],
)
def test_the_encoders_of_a_choice(pairs: str, expected: tuple[str, ...]) -> None:
    assert encoders_in(PAIRS.load(pairs)) == expected


def test_names_of_metrics() -> None:
    assert [str(pair) for pair in PAIRS.load("official")] == [
        "cnn_query.cnn_key",
        "cnn_query.transformer_query",
        "cnn_query.transformer_key",
        "transformer_query.transformer_key",
    ]
