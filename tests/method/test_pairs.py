"""Which encoders the pairs need, and that the table of pairs speaks of embeddings that exist."""

import pytest

from cacl.method.pairs import ENCODER_OF, PAIRS, required_encoders


@pytest.mark.parametrize(
    ("pairs", "order_weight", "expected"),
    [
        ("cross", 0.0, (True, True)),
        ("official", 0.0, (True, True)),
        ("within", 0.0, (True, True)),
        ("cnn", 0.0, (True, False)),
        ("cnn", 1.0, (True, False)),
        ("transformer", 0.0, (False, True)),
        ("none", 0.5, (True, False)),
    ],
)
def test_only_the_encoders_that_the_losses_need(pairs: str, order_weight: float, expected: tuple[bool, bool]) -> None:
    assert required_encoders(pairs, order_weight) == expected


def test_pairs_are_made_of_known_embeddings_and_begin_with_a_query() -> None:
    for pair in (pair for pairs in PAIRS.values() for pair in pairs):
        assert set(pair) <= ENCODER_OF.keys()
        assert pair.anchor in ("f_q", "t_q")
        assert pair.queue_anchor in ("f_q", "t_q")
