"""The state of a training run with labels: an encoder with a linear classifier, and what is special about its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cacl.checkpoints.checkpoint import Checkpoint, FinetuneRecord
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import CheckpointError
from cacl.models.encoder import Encoder
from cacl.models.recompute import set_checkpointing
from cacl.models.video_classifier import VideoClassifier
from cacl.stages import stage
from cacl.training.layer_rates import freeze_layers, layer_rates
from cacl.training.run_state import RunState


class FinetuneState(RunState[VideoClassifier]):
    """The state of a run of `cacl finetune`."""

    record: FinetuneRecord
    """The classes, and which validation went best so far."""

    def __init__(
        self,
        config: Config,
        clips_per_epoch: int,
        device: torch.device,
        *,
        build_encoder: Callable[[], Encoder],
        record: FinetuneRecord,
    ) -> None:
        """Draws the weights of a new classifier; `restore` replaces all weights by those of a checkpoint.

        Args:
            config: The configuration of the run.
            clips_per_epoch: The number of clips of an epoch.
            device: The device to train on.
            build_encoder: Makes the encoder. What it draws at random is decided by the seed.
            record: The classes and the validation videos of the run.

        Raises:
            ConfigError: The precision or the optimiser that the configuration asks for is not available here.
        """
        torch.manual_seed(config.seed)
        self.record = record
        dropout, parts = config.finetune.dropout, config.train.gradient_accumulation
        self.model = VideoClassifier(build_encoder(), len(record.classes), dropout, parts).to(device).train()
        if config.train.activation_checkpointing:
            set_checkpointing(self.model.encoder, config.finetune.encoder)
        freeze_layers(self.model, config.finetune)
        self.layer_rates = layer_rates(self.model, config.finetune)
        groups = [{"params": list(rate.parameters)} for rate in self.layer_rates]
        super().__init__(config, clips_per_epoch, device, trained=self.model, groups=groups)

    @property
    def min_clips_per_rank(self) -> int:
        """The least number of clips that one rank needs in a step: a single one has no variance to normalise by."""
        return 2 * self.model.parts

    def learning_rates(self) -> Mapping[str, float]:
        """Returns the learning rate of each group of layers in the next step."""
        scheduled = self.schedule.at(self.step)
        return {f"learning_rate/{rate.name}": rate.at(scheduled) for rate in self.layer_rates}

    def compute_loss(self, batch: ClipBatch, counts: Sequence[int] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the cross-entropy of the labels, with label smoothing and mixup where they are asked for.

        Args:
            batch: The clips of this rank with their labels, on the device.
            counts: The number of clips of each rank, which plays no part here.

        Returns:
            The mean loss of this rank's clips, and the accuracy on them, on the device.
        """
        assert batch.labels is not None
        finetune, labels = self.config.finetune, batch.labels
        with stage("query"):
            clips, others, ratio = batch.query.float(), labels, 1.0
            if finetune.mixup:
                # They are drawn on the CPU, whose random numbers are those of the step on any device.
                ratio = float(torch.distributions.Beta(finetune.mixup, finetune.mixup).sample())
                permutation = torch.randperm(len(labels)).to(labels.device)
                clips, others = ratio * clips + (1 - ratio) * clips[permutation], labels[permutation]
            logits = self.data_parallel(clips)
        with stage("loss"), torch.autocast(self.device.type, enabled=False):  # the loss stays fp32
            logits = logits.float()
            loss = ratio * F.cross_entropy(logits, labels, label_smoothing=finetune.label_smoothing)
            if finetune.mixup:
                loss = loss + (1 - ratio) * F.cross_entropy(logits, others, label_smoothing=finetune.label_smoothing)
        return loss, {"accuracy": (logits.detach().argmax(1) == labels).float().mean()}

    def end_step(self) -> None:
        """Changes nothing: a step ends with the optimiser."""

    def make_checkpoint(self, data_fingerprint: str) -> Checkpoint:
        """Returns the checkpoint of this state. Its tensors are those of the state and change with it.

        Args:
            data_fingerprint: The fingerprint of the training videos.
        """
        return replace(super().make_checkpoint(data_fingerprint), finetune=self.record)

    def restore(self, saved: Checkpoint) -> None:
        """Goes on from a checkpoint.

        Args:
            saved: A checkpoint of a run with the same configuration.

        Raises:
            CheckpointError: The run was begun by another command, with other classes or with other validation videos,
                or the weights in it do not fit the configuration.
        """
        if saved.finetune is None:
            raise CheckpointError(
                f"{self.config.run} holds a run of `cacl train`, which `cacl train --resume` goes on with"
            )
        begun, now = ((record.classes, record.val_fingerprint) for record in (saved.finetune, self.record))
        if begun != now:
            raise CheckpointError(
                f"{self.config.run} was begun with other validation videos or other classes than there are now: begin "
                "another run"
            )
        super().restore(saved)
        self.record = saved.finetune
