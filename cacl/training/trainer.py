"""`cacl train`: from a configuration to a trained checkpoint. `train` sets a run up, `fit` is the loop.

Whatever decides what is learnt is in `train_state`. `finetuning` sets up runs of another kind, with the same loop.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints.checkpoint import CHECKPOINT_NAME, Checkpoint
from cacl.clips import ClipBatch
from cacl.config import Config
from cacl.errors import ConfigError, UsageError
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.clip_loader import ClipLoader
from cacl.reporting.console import Console
from cacl.reporting.scalars import ScalarLog
from cacl.reporting.sinks.select import check_installed
from cacl.stages import stage
from cacl.training.checkpointer import Checkpointer, load_to_resume
from cacl.training.choose_config import choose_config
from cacl.training.failure_log import FailureLog
from cacl.training.knn_validation import KnnValidation
from cacl.training.run_manifest import RunManifest
from cacl.training.run_state import RunState
from cacl.training.scalar_averages import ScalarAverages
from cacl.training.stop_signals import StopSignals, TrainingInterruptedError
from cacl.training.train_state import TrainState
from cacl.training.training_videos import find_training_videos, scan_videos
from cacl.training.validation import PeriodicValidation

log = logging.getLogger(__name__)


class LogWatcher(Protocol):
    """What looks at a run whenever its scalars have been written, on rank 0 alone, and changes nothing of it."""

    def __call__(self, state: RunState[Any], catalog: Catalog, batch: ClipBatch, last: bool) -> None:
        """Looks at the run. The time that it takes is not counted as time of training.

        Args:
            state: The state of the run after a step.
            catalog: The training videos.
            batch: The clips of this rank in the step, which are there until this returns.
            last: Whether this is the last step that is taken, as it is when a signal stops the run.
        """
        ...


def train(
    config: Config, *, resume: bool = False, given: Collection[str] | None = None, on_log: LogWatcher | None = None
) -> dict[str, Any]:
    """Trains to the end.

    Args:
        config: The configuration of the run, which names the folder that everything is written to.
        resume: Whether to go on from the checkpoint in the run folder, if there is one.
        given: The keys that stay as they are, while `choose_config` chooses others; None: all of them stay.
        on_log: What looks at the run whenever its scalars have been written.

    Returns:
        What came of it: the run folder (`run`), the steps of the run (`steps`) and of this call (`steps_taken`), the
        `seconds` that they took, the scalars that were logged last (`scalars`), and, from the first step of the run
        on, how many clips were trained on (`clips_trained`), how many were not (`clips_skipped`), and how many of each
        file failed (`files_failed`).

    Raises:
        CaclError: Something went wrong that a user can mend. The message is one line.
        TrainingInterruptedError: A signal asked the run to stop, and it saved a checkpoint before it did.
    """
    check_installed(config)
    make_run_folder(config, resume=resume)
    with (
        distributed.process_group(config.train.device) as device,
        Console(enabled=distributed.rank() == 0) as console,
    ):
        config = config if given is None else choose_config(config, given, device, console)
        saved = load_to_resume(config) if resume else None
        state, loader = set_up(config, device, console, saved)
        validation = None
        if config.knn.every:
            validation = KnnValidation(state, scan_videos(config, console, config.clip.min_frames))
        return run_to_the_end(state, loader, console, saved, validation, on_log)


def set_up(
    config: Config, device: torch.device, console: Console, saved: Checkpoint | None = None
) -> tuple[TrainState, ClipLoader]:
    """Makes the state of a new run without labels, and the loader of its training videos. All ranks call it.

    Args:
        config: The configuration of the run.
        device: The device to train on.
        console: The open console.
        saved: The checkpoint that the run goes on from, whose training videos it keeps; None for a new run.

    Raises:
        CaclError: Something went wrong that a user can mend.
    """
    catalog = find_training_videos(config, console, saved)
    check_batch_size(config, {"contrast.shuffle_bn_groups": config.contrast.shuffle_bn_groups})
    state = TrainState(config, catalog.clips_per_epoch, device)
    _note_random_embedder(state)
    rank, world_size = distributed.rank(), distributed.world_size()
    return state, ClipLoader.from_config(
        config, catalog=catalog, split=None, rank=rank, world_size=world_size, device=device
    )


def run_to_the_end(
    state: RunState[Any],
    loader: ClipLoader,
    console: Console,
    saved: Checkpoint | None,
    validation: PeriodicValidation | None = None,
    on_log: LogWatcher | None = None,
) -> dict[str, Any]:
    """Takes all steps that a run lacks, and writes everything that it leaves in its folder.

    Args:
        state: The state of a new run.
        loader: The loader of the training videos.
        console: The open console.
        saved: The checkpoint that the run goes on from; None for a new run.
        validation: What judges the state during the run; None: nothing does.
        on_log: What looks at the run whenever its scalars have been written; None: nothing does.

    Returns:
        What `train` returns.

    Raises:
        CaclError: Something went wrong that a user can mend.
        TrainingInterruptedError: A signal asked the run to stop, and it saved a checkpoint before it did.
    """
    config, run, catalog = state.config, Path(state.config.run), loader.catalog
    if saved is not None:
        state.restore(saved)
        log.info("resuming %s after step %s of %s", run, state.step, state.num_steps)
    is_main = distributed.rank() == 0
    if is_main:
        (run / "config.toml").write_text(configuration.to_toml(config))
        RunManifest(run).write(catalog)

    began, first_step = time.monotonic(), state.step
    batches = loader.steps(state.step, state.num_steps)
    checkpointer = Checkpointer(config, catalog.fingerprint)
    failure_log = FailureLog(catalog, config, first_step, writes=is_main)
    with ScalarLog(config, console, first_step=first_step, steps=state.num_steps) as scalar_log:
        watcher = partial(on_log, state, catalog) if on_log and is_main else lambda batch, last: None
        scalars = fit(state, batches, checkpointer, failure_log, scalar_log, validation, watcher)
    checkpointer.save_encoders(state)
    failure_log.log_summary()
    return {
        "run": str(run),
        "steps": state.num_steps,
        "steps_taken": state.step - first_step,
        "seconds": time.monotonic() - began,
        "scalars": scalars,
        "clips_trained": state.step * config.train.batch_size - failure_log.clips_skipped,
        "clips_skipped": failure_log.clips_skipped,
        "files_failed": dict(failure_log.files_failed),
    }


def fit(
    state: RunState[Any],
    batches: Iterator[ClipBatch],
    checkpointer: Checkpointer,
    failure_log: FailureLog,
    scalar_log: ScalarLog,
    validation: PeriodicValidation | None = None,
    on_log: Callable[[ClipBatch, bool], None] = lambda batch, last: None,
    watch: Callable[[Iterator[ClipBatch]], Iterator[ClipBatch]] = lambda batches: batches,
) -> dict[str, float]:
    """Takes the steps that the run still lacks, one for each batch. All ranks call it.

    Args:
        state: The state of the run, which the steps change.
        batches: The batches of this rank, from the next step to the last.
        checkpointer: What saves the state.
        failure_log: The account of the clips that are not trained on.
        scalar_log: What the scalars are written to.
        validation: What judges the state during the run.
        on_log: A `LogWatcher` of this run, which is called with the batch of a step and `last` alone.
        watch: Passes the batches on. From one to the next is a step, with the wait for its batch at the beginning.

    Returns:
        The scalars that were logged last, by name.

    Raises:
        CaclError: A loss is not finite, too many clips failed, or a signal asked the run to stop before its last step.
    """
    config, averages, scalars = state.config.train, ScalarAverages(), {}
    with StopSignals() as signals:
        for batch in watch(averages.timed(batches)):
            step = state.step + 1
            # All ranks skip the same steps, and stop after the same one, whichever of them was told to.
            with stage("data"):
                counts, received = zip(*distributed.all_gather_numbers(len(batch), signals.received), strict=True)
            enough_clips, stop_signal = min(counts) >= state.min_clips_per_rank, max(received)
            if sum(counts) < config.batch_size:
                failure_log.record_batch(step, batch, skipped=not enough_clips)

            last = step == state.num_steps or stop_signal > 0
            judge = validation if validation and validation.due(step) else None
            log_now = last or judge is not None or step % config.log_every == 0
            save_now = last or checkpointer.due(step)
            sync = log_now or save_now or state.device.type == "cpu"  # In other steps, a GPU is not waited for.
            metrics = state.train_step(batch, sync=sync, counts=counts) if enough_clips else state.skip_step(sync=sync)
            with stage("log"):
                averages.add(metrics, clips=sum(counts))
                with averages.paused():
                    validated = judge.run(checkpointer) if judge else {}
                if log_now and averages.steps:
                    scalars = averages.take() | state.measure() | validated
                    scalar_log.write(step, scalars | failure_log.scalars | {"epoch": state.epochs_done})
                    with averages.paused():
                        on_log(batch, last)
                if save_now:
                    checkpointer.save(state)
            if stop_signal and step < state.num_steps:
                raise TrainingInterruptedError(stop_signal, step, state.num_steps)
    return scalars


def make_run_folder(config: Config, *, resume: bool) -> None:
    """Makes the folder of a run.

    Args:
        config: The configuration of the run.
        resume: Whether there may be a run in it already.

    Raises:
        UsageError: There is a run in it, or no such folder can be made.
    """
    run = Path(config.run)
    if (run / CHECKPOINT_NAME).exists() and not resume:
        raise UsageError(f"{run} already holds a run: --resume goes on with it, --run begins another")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"run = {run}: no such folder can be made ({error.strerror})") from None


def check_batch_size(config: Config, divisors: Mapping[str, int] | None = None) -> None:
    """Checks that a batch divides among the processes, and the share of each into the parts of gradient accumulation.

    Args:
        config: The configuration of the run.
        divisors: The numbers that each part is divided by, by the keys that say so.

    Raises:
        ConfigError: It does not, or leaves one of them less than two clips.
    """
    divisors = {"train.gradient_accumulation": config.train.gradient_accumulation} | dict(divisors or {})
    share, rest = divmod(config.train.batch_size, distributed.world_size())
    pieces = math.prod(divisors.values())
    if rest or share < 2 * pieces or share % pieces:
        keys = "".join(f" and {key} = {number}" for key, number in divisors.items() if number > 1)
        raise ConfigError(
            f"train.batch_size = {config.train.batch_size} does not divide into at least 2 clips for each of "
            f"{distributed.world_size()} processes{keys}"
        )


def _note_random_embedder(state: TrainState) -> None:
    transformer = state.config.model.transformer
    if (
        state.model.query.transformer is not None
        and transformer.frozen
        and not transformer.weights
        and transformer.embedder not in ("light", "tubelet")
    ):
        log.info(
            "note: the frame embedder %s is frozen with random weights; give a file of pre-trained ones as "
            "model.transformer.weights, or set model.transformer.frozen = false",
            transformer.embedder,
        )
