"""The state of a training run without labels: the method, its optimiser, and what is special about its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cacl import distributed
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.method.cacl import CACL
from cacl.method.pairs import Embedding
from cacl.training.embedding_measures import measure_embeddings
from cacl.training.embedding_warnings import EmbeddingWarnings
from cacl.training.run_state import RunState


class TrainState(RunState[CACL]):
    """The state of a training run without labels."""

    def __init__(self, config: Config, clips_per_epoch: int, device: torch.device) -> None:
        """Draws the weights of a new run; `restore` replaces them by those of a checkpoint.

        Args:
            config: The configuration of the run.
            clips_per_epoch: The number of clips of an epoch.
            device: The device to train on.

        Raises:
            ConfigError: The precision or the optimiser that the configuration asks for is not available here.
        """
        torch.manual_seed(config.seed)
        self.model = CACL(config).to(device)
        super().__init__(config, clips_per_epoch, device, trained=self.model.query)
        self._embeddings: Mapping[Embedding, Tensor] = {}
        self._counts: Sequence[int] | None = None
        self._warnings = EmbeddingWarnings(config.contrast)

    @property
    def min_clips_per_rank(self) -> int:
        """The least number of clips that one rank needs in a step."""
        return self.model.min_clips_per_rank

    def learning_rates(self) -> Mapping[str, float]:
        """Returns the learning rate of the next step, which all parameters share."""
        return {"learning_rate": self.schedule.at(self.step)}

    def compute_loss(self, batch: ClipBatch, counts: Sequence[int] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the losses of the method, and keeps the new keys for `end_step` and the embeddings for `measure`.

        Args:
            batch: The clips of this rank, on the device.
            counts: The number of clips of each rank; None: all have as many.

        Returns:
            The weighted sum of the losses, and scalars by name, on the device.
        """
        losses, self._keys = self.data_parallel(batch, self.step, counts)
        self._embeddings, self._counts = losses.embeddings, counts
        return losses.total, losses.metrics

    def end_step(self) -> None:
        """Lets the momentum copies follow, and the new keys enter the queue."""
        self.model.update(self._keys)

    def measure(self) -> dict[str, float]:
        """Measures the embeddings of the last step, of the clips of all ranks, and warns of what they say.

        Returns:
            What `measure_embeddings` returns; nothing without a contrast.
        """
        # In float64 on the CPU, and with no gradient: a few hundred vectors.
        gathered = {
            name: distributed.all_gather(x.double().cpu(), self._counts) for name, x in self._embeddings.items()
        }
        queries, keys = (
            {name.encoder: x for name, x in gathered.items() if name.side == side} for side in ("query", "key")
        )
        measures = measure_embeddings(queries, keys, self._old_keys())
        if queries:
            self._warnings.check(self.step, measures, largest_rank=min(next(iter(queries.values())).shape))
        return measures

    def _old_keys(self) -> Tensor | None:
        """The keys that leave the queue with the next step, float64 [N, D] on the CPU.

        They are as many as a step brings, so that each encoder has the same share of them. There are none where the
        queue is no negatives, still holds random vectors, or is too short to hold the keys of two steps.
        """
        queue, count = self.model.queue, len(self._keys)
        if self.config.contrast.negatives == "batch" or not 2 * count <= len(queue.keys) <= count * self.step:
            return None
        return queue.oldest(count).double().cpu()
