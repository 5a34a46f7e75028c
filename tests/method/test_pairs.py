"""The choices of pairs speak of embeddings that exist."""

from __future__ import annotations

from typing import Any

import pytest

from cacl.errors import ConfigError
from cacl.method.pairs import CNN_KEY, CNN_QUERY, Embedding, Pair, check_pairs, encoders_in
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


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "has no pair; losses.contrast = 0 leaves the contrast out"),
        ([("cnn", "key", "cnn")], "is no Pair of three of cnn_query, cnn_key, transformer_query, transformer_key"),
        ([Pair(CNN_QUERY, Embedding("cmn", "key"), CNN_QUERY)], "is no Pair of three of"),
        ([Pair(CNN_KEY, CNN_QUERY, CNN_QUERY)], "have to be queries"),
        ([Pair(CNN_QUERY, CNN_KEY, CNN_KEY)], "have to be queries"),
        ([Pair(CNN_QUERY, CNN_QUERY, CNN_QUERY)], "another embedding than the anchor"),
    ],
)
def test_pairs_that_cannot_be_contrasted_are_named(pairs: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"contrast.pairs = mine: .*{message}"):
        check_pairs("mine", pairs)
