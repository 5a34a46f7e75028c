"""Says in plain words when an encoder has collapsed, or has moved ahead of its keys: once for each encoder and cause.

docs/results.md has the runs that the bounds were chosen on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from cacl.config import ContrastConfig

log = logging.getLogger(__name__)

COLLAPSED_ENTROPY = 0.13
"""An encoder has collapsed where log(effective rank) is below this share of log(largest effective rank).

Of 32 embeddings that is an effective rank of 1.57. Unlike the rank, the share hardly depends on how many there are.
"""
LOST_KEYS_COSINE = 0.2
"""An encoder has moved ahead of its keys where the mean cosine of a query and the key of its video is below this.

It counts where there is a queue, whose keys are older still. Within a batch all keys are of one age.
"""


class EmbeddingWarnings:
    """Warns of what the embeddings of a run say. It has no part in checkpoints: a resumed run may warn once more."""

    def __init__(self, contrast: ContrastConfig) -> None:
        """Has warned of nothing yet.

        Args:
            contrast: What the way out depends on.
        """
        self.uses_queue = contrast.negatives != "batch"
        self._warned: set[tuple[str, str]] = set()

    def check(self, step: int, measures: Mapping[str, float], largest_rank: int) -> None:
        """Warns of what has not been warned of before.

        Args:
            step: The number of steps taken.
            measures: What `measure_embeddings` returns.
            largest_rank: The largest effective rank that there can be: the smaller of N and D.
        """
        for name, value in measures.items():
            measure, _, embedding = name.partition("/")
            encoder = embedding.partition("_")[0]
            cosine = 1 - value / 2  # of an alignment
            if measure == "effective_rank" and math.log(value) < COLLAPSED_ENTROPY * math.log(largest_rank):
                self._warn(
                    step,
                    encoder,
                    "has collapsed: its embeddings of different videos are nearly the same "
                    f"({name} = {value:.2f}, of {largest_rank} at most)",
                )
            elif measure == "alignment" and cosine < LOST_KEYS_COSINE and self.uses_queue:
                self._warn(
                    step,
                    encoder,
                    "has moved ahead of its keys: the mean cosine of a query and the key of the same video is "
                    f"{cosine:.2f} ({name} = {value:.2f}), because the momentum copy lags behind",
                )

    def _warn(self, step: int, encoder: str, what: str) -> None:
        cause = what.partition(":")[0]
        if (encoder, cause) in self._warned:
            return
        self._warned.add((encoder, cause))
        helps = "a lower optim.lr and a longer optim.warmup_epochs"
        if self.uses_queue:
            helps = f'contrast.negatives = "batch", or {helps}'
        log.warning("warning: step %s: the %s %s. What usually helps: %s", step, _SPOKEN[encoder], what, helps)


_SPOKEN = {"cnn": "CNN", "transformer": "transformer"}
