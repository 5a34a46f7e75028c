"""The choices of pairs: which embeddings of a video attract each other.

A video has an embedding from each encoder and each view: the queries are those of the query view from the trained
encoders, the keys those of the key view from their momentum copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from cacl.errors import ConfigError

Side = Literal["query", "key", "reversed_key"]
"""`query` carries a gradient, `key` comes from the momentum copy, and so does `reversed_key`, of the clip played
backwards, which is no positive of any pair."""


class Embedding(NamedTuple):
    """One of the embeddings of a video."""

    encoder: str
    """The encoder that makes it: `cnn` or `transformer`."""
    side: Side

    def __str__(self) -> str:
        """Returns the name that metrics have for it, such as `cnn_query`."""
        return f"{self.encoder}_{self.side}"


class Pair(NamedTuple):
    """Two embeddings of the same video that attract each other."""

    anchor: Embedding
    """The first side of the pair, which always carries a gradient."""
    positive: Embedding
    """The second side of the pair."""
    queue_anchor: Embedding
    """The query whose similarities to the keys of the queue are the negatives of this pair. Within a batch it plays no
    part: there, both sides of the pair are contrasted with those of the other videos."""

    @property
    def is_across(self) -> bool:
        """Whether the two sides come from different architectures."""
        return self.anchor.encoder != self.positive.encoder

    def __str__(self) -> str:
        """Returns the name that metrics have for it, such as `cnn_query.transformer_key`."""
        return f"{self.anchor}.{self.positive}"


CNN_QUERY, CNN_KEY = Embedding("cnn", "query"), Embedding("cnn", "key")
TRANSFORMER_QUERY, TRANSFORMER_KEY = Embedding("transformer", "query"), Embedding("transformer", "key")
EMBEDDINGS = (CNN_QUERY, CNN_KEY, TRANSFORMER_QUERY, TRANSFORMER_KEY)
"""The embeddings of a video."""

# Each query is paired with both keys and has its own similarities to the queue as negatives.
CROSS = (
    Pair(CNN_QUERY, CNN_KEY, CNN_QUERY),
    Pair(CNN_QUERY, TRANSFORMER_KEY, CNN_QUERY),
    Pair(TRANSFORMER_QUERY, CNN_KEY, TRANSFORMER_QUERY),
    Pair(TRANSFORMER_QUERY, TRANSFORMER_KEY, TRANSFORMER_QUERY),
)
# The released code contrasts every pair with the negatives of the CNN's query, also those of the transformer alone.
OFFICIAL = (
    Pair(CNN_QUERY, CNN_KEY, CNN_QUERY),
    Pair(CNN_QUERY, TRANSFORMER_QUERY, CNN_QUERY),
    Pair(CNN_QUERY, TRANSFORMER_KEY, CNN_QUERY),
    Pair(TRANSFORMER_QUERY, TRANSFORMER_KEY, CNN_QUERY),
)
# Each architecture is contrasted on its own. Beside `cross` this shows what the pairs across architectures add.
WITHIN = (
    Pair(CNN_QUERY, CNN_KEY, CNN_QUERY),
    Pair(TRANSFORMER_QUERY, TRANSFORMER_KEY, TRANSFORMER_QUERY),
)
CNN = (Pair(CNN_QUERY, CNN_KEY, CNN_QUERY),)
TRANSFORMER = (Pair(TRANSFORMER_QUERY, TRANSFORMER_KEY, TRANSFORMER_QUERY),)


def encoders_in(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Returns the encoders that make the embeddings of some pairs, each once."""
    return tuple(dict.fromkeys(embedding.encoder for pair in pairs for embedding in pair))


def check_pairs(name: str, pairs: Sequence[Pair]) -> None:
    """Checks that a choice of pairs can be contrasted.

    Args:
        name: The name of the choice, for the message.
        pairs: The pairs.

    Raises:
        ConfigError: There is no pair, or one is made of embeddings that do not go together.
    """
    if not pairs:
        raise ConfigError(f"contrast.pairs = {name}: has no pair; losses.contrast = 0 leaves the contrast out")
    for pair in pairs:
        if not isinstance(pair, Pair) or any(embedding not in EMBEDDINGS for embedding in pair):
            raise ConfigError(
                f"contrast.pairs = {name}: {pair} is no Pair of three of {', '.join(map(str, EMBEDDINGS))}"
            )
        if pair.anchor.side != "query" or pair.queue_anchor.side != "query" or pair.anchor == pair.positive:
            raise ConfigError(
                f"contrast.pairs = {name}: of {pair}, anchor and queue_anchor have to be queries, and the positive "
                "another embedding than the anchor"
            )
