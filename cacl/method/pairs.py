"""The table of pairs: which embeddings of a video attract each other, and which encoders that takes.

A video has four embeddings, two encoders by two views: `f_q` and `t_q` are those of the query view from the trained CNN
and the trained transformer, `f_k` and `t_k` those of the key view from the momentum copies of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

ENCODER_OF: Mapping[str, Literal["cnn", "transformer"]] = {
    "f_q": "cnn",
    "f_k": "cnn",
    "t_q": "transformer",
    "t_k": "transformer",
}
"""The encoder that makes each embedding."""


class Pair(NamedTuple):
    """Two embeddings of the same video that attract each other. Its fields are keys of `ENCODER_OF`."""

    anchor: str
    """The first side of the pair, which always carries a gradient."""
    positive: str
    """The second side of the pair."""
    queue_anchor: str
    """The embedding whose similarities to the keys of the queue are the negatives of this pair. Within a batch it plays
    no part: there, both sides of the pair are contrasted with those of the other videos."""


PAIRS: Mapping[str, tuple[Pair, ...]] = {
    # Each query is paired with both keys and has its own similarities to the queue as negatives.
    "cross": (
        Pair("f_q", "f_k", "f_q"),
        Pair("f_q", "t_k", "f_q"),
        Pair("t_q", "f_k", "t_q"),
        Pair("t_q", "t_k", "t_q"),
    ),
    # The released code contrasts every pair with the negatives of the CNN's query, the pair t_q . t_k included.
    "official": (
        Pair("f_q", "f_k", "f_q"),
        Pair("f_q", "t_q", "f_q"),
        Pair("f_q", "t_k", "f_q"),
        Pair("t_q", "t_k", "f_q"),
    ),
    # Each architecture is contrasted on its own. Beside "cross" this shows what the pairs across architectures add.
    "within": (Pair("f_q", "f_k", "f_q"), Pair("t_q", "t_k", "t_q")),
    "cnn": (Pair("f_q", "f_k", "f_q"),),
    "transformer": (Pair("t_q", "t_k", "t_q"),),
    "none": (),
}
"""The pairs that are contrasted, by the value of the configuration key `contrast.pairs`."""


class RequiredEncoders(NamedTuple):
    """Which of the two encoders a choice of losses needs."""

    cnn: bool
    transformer: bool


def required_encoders(pairs: str, order_weight: float) -> RequiredEncoders:
    """Tells which encoders the losses need, so that no other one is built.

    Args:
        pairs: A key of `PAIRS`.
        order_weight: The weight of the order loss, which needs the CNN where it is not zero.

    Returns:
        Whether the CNN and whether the transformer is needed.
    """
    encoders = {ENCODER_OF[embedding] for pair in PAIRS[pairs] for embedding in pair}
    return RequiredEncoders(cnn=order_weight > 0 or "cnn" in encoders, transformer="transformer" in encoders)
