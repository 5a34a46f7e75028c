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
        self.contrast = contrast
        self._warned: set[str] = set()

    def check(self, step: int, measures: Mapping[str, float], largest_rank: int) -> None:
        """Warns of what has not been warned of before.

        Args:
            step: The number of steps taken.
            measures: What `measure_embeddings` returns.
            largest_rank: The largest effective rank that there can be: the smaller of N and D.
        """
        for problem, evidence in find_problems(measures, largest_rank, self.contrast).items():
            if problem not in self._warned:
                self._warned.add(problem)
                helps = what_helps(self.contrast)
                log.warning("warning: step %s: %s %s. What usually helps: %s", step, problem, evidence, helps)


def find_problems(measures: Mapping[str, float], largest_rank: int, contrast: ContrastConfig) -> dict[str, str]:
    """Finds what the embeddings of one step say against their encoders.

    Args:
        measures: What `measure_embeddings` returns. Other scalars may stand beside them.
        largest_rank: The largest effective rank that there can be: the smaller of N and D.
        contrast: It says whether there is a queue.

    Returns:
        The problems, such as "the CNN has collapsed:", each with its explanation and the value that tells it.
    """
    found = {}
    for name, value in measures.items():
        measure, _, embedding = name.partition("/")
        encoder = _SPOKEN.get(embedding.partition("_")[0])
        if encoder is None:
            continue
        cosine = 1 - value / 2  # of an alignment
        if measure == "effective_rank" and math.log(value) < COLLAPSED_ENTROPY * math.log(largest_rank):
            found[f"the {encoder} has collapsed:"] = (
                "its embeddings of different videos are nearly the same "
                f"({name} = {value:.2f}, of {largest_rank} at most)"
            )
        elif measure == "alignment" and cosine < LOST_KEYS_COSINE and uses_queue(contrast):
            found[f"the {encoder} has moved ahead of its keys:"] = (
                "the mean cosine of a query and the key of the same video is "
                f"{cosine:.2f} ({name} = {value:.2f}), because the momentum copy lags behind"
            )
    return found


def what_helps(contrast: ContrastConfig) -> str:
    """Returns what usually helps against these problems, as keys of the configuration."""
    helps = "a lower optim.lr and a longer optim.warmup_epochs"
    return f'contrast.negatives = "batch", or {helps}' if uses_queue(contrast) else helps


def uses_queue(contrast: ContrastConfig) -> bool:
    """Returns whether the keys of earlier videos are negatives."""
    return contrast.negatives != "batch"


_SPOKEN = {"cnn": "CNN", "transformer": "transformer"}
