"""What the states of all kinds of runs share, and the single step that changes a state.

Everything random in step s is a function of (seed, s): the clips, their augmentation, the dropout masks. So is the
learning rate. A checkpoint therefore needs only the step, the weights and the optimiser, and a run that was stopped
goes on as if it had not been.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from cacl import distributed
from cacl.checkpoints.checkpoint import Checkpoint
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import CaclError, CheckpointError, ConfigError
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import TRAINING_STEP_STREAM
from cacl.stages import stage
from cacl.training.optim import LearningRateSchedule, create_optimizer, limit_gradient, restore_optimizer

Model = TypeVar("Model", bound=nn.Module)


class DivergenceError(CaclError):
    """A loss or its gradient is not finite. With several processes all of them raise it in the same step."""


class RunState(ABC, Generic[Model]):
    """The state of a run: a model, its optimiser, and how many steps were taken."""

    model: Model
    """Everything that the run changes, apart from the state of the optimiser."""

    def __init__(
        self,
        config: Config,
        clips_per_epoch: int,
        device: torch.device,
        *,
        trained: nn.Module,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        """Makes the optimiser of a new run; `restore` replaces what it holds by that of a checkpoint.

        Args:
            config: The configuration of the run.
            clips_per_epoch: The number of clips of an epoch.
            device: The device to train on, where the model lies.
            trained: The part of the model that the optimiser changes.
            groups: Its parameter groups, as torch's optimisers take them; None: all parameters in one group.

        Raises:
            ConfigError: The precision or the optimiser that the configuration asks for is not available here.
        """
        self.config, self.clips_per_epoch, self.device = config, clips_per_epoch, device
        self.schedule = LearningRateSchedule(config, clips_per_epoch)
        self.num_steps = self.schedule.num_steps
        self.step = 0
        self.bf16 = uses_bf16(config.train.precision, device)
        self.trained = trained
        self.optimizer = create_optimizer(trained if groups is None else groups, config.optim)
        if config.train.compile:
            trained.compile()
        self.data_parallel = distributed.data_parallel(self.model, device)
        # Whether all losses and gradients so far are finite. It stays on the device until a step waits for it.
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    @property
    @abstractmethod
    def min_clips_per_rank(self) -> int:
        """The least number of clips that one rank needs in a step."""

    @abstractmethod
    def learning_rates(self) -> Mapping[str, float]:
        """Returns the learning rate of each parameter group in the next step, under the name that it is logged by."""

    @abstractmethod
    def compute_loss(self, batch: ClipBatch, counts: Sequence[int] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of a batch, under autocast where that is in use.

        Args:
            batch: The clips of this rank, on the device.
            counts: The number of clips of each rank; None: all have as many.

        Returns:
            The mean loss of this rank's clips, and scalars by name, on the device.
        """

    @abstractmethod
    def end_step(self) -> None:
        """Changes what changes after the optimiser."""

    def measure(self) -> dict[str, float]:
        """Returns what a log line says of this state beside the scalars of its steps. All ranks call it.

        It waits for the device, and changes nothing of what is trained.
        """
        return {}

    @property
    def epochs_done(self) -> float:
        """The number of epochs, not necessarily whole, that the steps taken so far amount to."""
        return self.step * self.config.train.batch_size / self.clips_per_epoch

    def train_step(self, batch: ClipBatch, *, sync: bool, counts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Takes one step.

        Args:
            batch: The clips of this rank, which are copied to the device.
            sync: Whether to wait for the device, in order to check that all losses and gradients so far are finite.
            counts: The number of clips of each rank; None: all have as many.

        Returns:
            Scalars of this step by name, on the device.

        Raises:
            DivergenceError: The loss or its gradient, of this step or an earlier one, is not finite. The step is not
                taken.
        """
        with stage("copy"):
            batch = batch.to(self.device)
        self.seed_step()
        learning_rates = self.learning_rates()
        with self.autocast():
            loss, metrics = self.compute_loss(batch, counts)
        with stage("backward"):
            # Gradients are averaged over ranks, and are to be those of the mean over all clips.
            weight = len(batch) * len(counts) / sum(counts) if counts else 1.0
            self.optimizer.zero_grad()
            (loss * weight).backward()
        with stage("optimizer"):
            norm = limit_gradient(self.trained.parameters(), self.config.optim.max_grad_norm)
            self.finite &= loss.isfinite() & norm.isfinite()
            if sync:
                self._check_finite()
            for group, learning_rate in zip(self.optimizer.param_groups, learning_rates.values(), strict=True):
                group["lr"] = learning_rate
            self.optimizer.step()
        self.end_step()
        self.step += 1
        return metrics | {
            "loss": loss.detach(),
            "gradient_norm": norm.detach(),
            **{name: torch.tensor(learning_rate) for name, learning_rate in learning_rates.items()},
        }

    def skip_step(self, *, sync: bool) -> dict[str, Tensor]:
        """Counts a step that has too few clips to learn from. Nothing else changes but the learning rate.

        Args:
            sync: Whether to wait for the device, as in `train_step`.

        Returns:
            No scalars.

        Raises:
            DivergenceError: The loss or the gradient of an earlier step is not finite.
        """
        if sync:
            self._check_finite()
        self.step += 1
        return {}

    def make_checkpoint(self, data_fingerprint: str) -> Checkpoint:
        """Returns the checkpoint of this state. Its tensors are those of the state and change with it.

        Args:
            data_fingerprint: The fingerprint of the training videos.
        """
        return Checkpoint(
            config=self.config,
            step=self.step,
            data_fingerprint=data_fingerprint,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )

    def restore(self, saved: Checkpoint) -> None:
        """Goes on from a checkpoint.

        Args:
            saved: A checkpoint of a run with the same configuration.

        Raises:
            CheckpointError: The weights in it do not fit the configuration.
        """
        try:
            self.model.load_state_dict(saved.model)
            restore_optimizer(self.optimizer, saved.optimizer)
        except (RuntimeError, ValueError, KeyError):
            raise CheckpointError(
                f"{self.config.run}: its weights do not fit its configuration; begin another run"
            ) from None
        self.step = saved.step

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context in which the model computes, in the precision that the configuration asks for."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def seed_step(self) -> None:
        """Sets torch's random state to that of the next step of this rank."""
        rng = RandomStream(self.config.seed, TRAINING_STEP_STREAM, self.step, distributed.rank())
        torch.manual_seed(rng.integer(0, 2**53))

    def _check_finite(self) -> None:
        if not self.finite:
            raise DivergenceError(
                f"step {self.step + 1}: the loss or its gradient is not finite; the last checkpoint is from before "
                "that. Lower optim.lr, set optim.max_grad_norm, or set train.precision = fp32"
            )


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Returns whether encoders run under autocast to bfloat16.

    Args:
        precision: What `train.precision` says.
        device: The device to train on.

    Raises:
        ConfigError: They would not reproduce on this device.
    """
    if precision == "bf16" and device.type == "cpu":
        # Measured with torch 2.15: weight gradients of some bf16 convolutions differ from call to call on a CPU, and
        # are sometimes not finite. docs/training.md has the figures.
        raise ConfigError("train.precision = bf16: does not reproduce on a CPU; say auto or fp32")
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")
