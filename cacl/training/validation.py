"""How well a classifier does on the validation videos during a run, and which of its states did best."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cacl import distributed
from cacl.checkpoints.checkpoint import BEST_NAME
from cacl.clips import Failure
from cacl.errors import DataError
from cacl.loaders.clip_loader import ClipLoader
from cacl.training.checkpointer import Checkpointer
from cacl.training.finetune_state import FinetuneState

log = logging.getLogger(__name__)


class PeriodicValidation(Protocol):
    """What judges the state of a run after some of its steps. All ranks do so."""

    def due(self, step: int) -> bool:
        """Returns whether there is a validation after this step."""
        ...

    def run(self, checkpointer: Checkpointer) -> dict[str, float]:
        """Judges the state.

        Args:
            checkpointer: What saves the state, where it is worth that.

        Returns:
            Scalars by name.
        """
        ...


class Validation:
    """Judges the state of a run by its validation videos at the end of epochs, and keeps the best one. All ranks do."""

    def __init__(self, state: FinetuneState, loader: ClipLoader) -> None:
        """Loads nothing yet.

        Args:
            state: The state of the run, as its steps leave it.
            loader: The loader of the validation videos, with their labels.
        """
        self.state, self.loader = state, loader
        self.clips_between = state.clips_per_epoch * state.config.finetune.val_epochs
        self.labels = torch.tensor(loader.catalog.label_numbers(loader.config.finetune.label, loader.classes))
        self.videos_named: set[int] = set()

    def due(self, step: int) -> bool:
        """Returns whether there is a validation after this step: an epoch ends with it, or the run."""
        batch_size = self.state.config.train.batch_size
        ended, ended_before = (count * batch_size // self.clips_between for count in (step, step - 1))
        return ended > ended_before or step == self.state.num_steps

    def run(self, checkpointer: Checkpointer) -> dict[str, float]:
        """Classifies the validation videos, and saves the state if it did better than all before.

        Better is a higher accuracy, or a lower loss at the same accuracy.

        Args:
            checkpointer: What saves the state, into `best.pt`.

        Returns:
            The scalars `val_accuracy`, from 0 to 1, and `val_loss`, over the videos of all ranks.

        Raises:
            DataError: A clip cannot be loaded and `loader.on_failure` is "fail", or none can.
        """
        state = self.state
        share_batch_statistics(state.model)
        state.model.eval()
        logits, failures = self._classify()
        state.model.train()
        account_for(failures, self.videos_named, self.loader)
        videos = torch.tensor(list(logits), dtype=torch.long)
        sums = torch.zeros(3, dtype=torch.float64)
        if logits:
            values, labels = torch.stack(list(logits.values())), self.labels[videos]
            correct = (values.argmax(1) == labels).sum()
            sums = torch.stack([torch.tensor(len(videos)), correct, F.cross_entropy(values, labels, reduction="sum")])
        count, correct, loss = distributed.all_gather(sums.double()[None]).sum(0).tolist()
        if not count:
            raise DataError(f"{self.loader.catalog.root}: no validation video can be loaded any more; mend them")
        accuracy, loss = correct / count, loss / count
        record = state.record
        if (accuracy, -loss) > (record.best_accuracy, -record.best_loss):
            state.record = replace(record, best_step=state.step, best_accuracy=accuracy, best_loss=loss)
            checkpointer.save(state, BEST_NAME)
        return {"val_accuracy": accuracy, "val_loss": loss}

    @torch.no_grad()
    def _classify(self) -> tuple[dict[int, Tensor], list[Failure]]:
        """Returns the mean logits [C] of each video of this rank, on the CPU, and the clips that did not load."""
        sums: dict[int, Tensor] = {}
        counts: dict[int, int] = defaultdict(int)
        failures: list[Failure] = []
        state = self.state
        for batch in self.loader.evaluation(state.config.finetune.val_clips):
            failures += batch.failures
            if not len(batch):
                continue
            with state.autocast():
                values = state.model(batch.views[0].to(state.device).float()).float().cpu()
            for video, value in zip(batch.video.tolist(), values, strict=True):
                sums[video] = sums[video] + value if video in sums else value
                counts[video] += 1
        return {video: value / counts[video] for video, value in sums.items()}, failures


def account_for(failures: list[Failure], videos_named: set[int], loader: ClipLoader) -> None:
    """Names videos of which a clip failed, each once, and stops all ranks where a failure is to stop the run.

    Args:
        failures: The clips of this rank that did not load.
        videos_named: The videos that were named before, to which these are added.
        loader: The loader of the clips.

    Raises:
        DataError: A clip of some rank failed, and `loader.on_failure` is "fail".
    """
    everywhere = [failure for part in distributed.all_gather_objects(failures) for failure in part]
    if everywhere and loader.config.loader.on_failure == "fail":
        raise DataError(f'{everywhere[0].reason}; loader.on_failure = "skip" goes on without it')
    for failure in everywhere:
        if failure.video not in videos_named:
            videos_named.add(failure.video)
            log.info("validation: leaving out a clip: %s", failure.reason)


def share_batch_statistics(model: nn.Module) -> None:
    """Gives all ranks the batch statistics of rank 0, which are saved. Nothing but validations takes them.

    Args:
        model: The model, whose buffers change on all ranks but the first.
    """
    if distributed.world_size() == 1:
        return
    for buffer in model.buffers():
        buffer.copy_(distributed.all_gather(buffer.cpu()[None])[0])
