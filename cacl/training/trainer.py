"""`cacl train`: from a configuration to a trained checkpoint.

Everything random in step s is a function of (seed, s): the clips, their augmentation, the dropout masks. So is the
learning rate. A checkpoint therefore needs only the step, the weights, the queue and the optimiser, and a run that was
stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cacl import config as configuration
from cacl import distributed
from cacl.checkpoints import checkpoint
from cacl.checkpoints.encoders import ENCODERS_NAME, EncoderWeights
from cacl.clips import ClipBatch, to_device
from cacl.config import Config
from cacl.errors import CaclError, CheckpointError, ConfigError, UsageError
from cacl.loaders.backends.select import build_backend, choose_backend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.scan import scan
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.sampling.sampler import TRAINING_STEP_STREAM, ClipSampler
from cacl.method.cacl import CACL
from cacl.reporting.console import Console, log_catalog
from cacl.reporting.scalars import ScalarLog
from cacl.training import run_manifest
from cacl.training.failure_log import FailureLog
from cacl.training.optim import create_optimizer, learning_rate, learning_rate_of_epoch

MAY_CHANGE = (
    "name",
    "run",
    "data.",
    "loader.",
    "retrieval.",
    "train.device",
    "train.log_every",
    "train.checkpoint_every",
)
"""Keys that a resumed run may set anew: they change how it runs, not what it computes. The videos are compared by
their fingerprint, wherever they lie."""


class Interrupted(CaclError):
    """Stopped by a signal, after a checkpoint."""

    exit_code = 130


class Trainer:
    """The state of a run: the learner, its optimiser, and how many steps were taken."""

    def __init__(self, config: Config, videos: int, device: torch.device) -> None:
        self.config, self.videos, self.device = config, videos, device
        self.steps = math.ceil(config.train.epochs * videos / config.train.batch_size)
        self.warmup_steps = round(config.optim.warmup_epochs * videos / config.train.batch_size)
        self.step = 0
        torch.manual_seed(config.seed)
        self.bf16 = _bf16(config.train.precision, device)
        self.learner = CACL(config).to(device)
        self.optimizer = create_optimizer(self.learner.query, config.optim)
        self.query = _wrapped(self.learner.query, config, device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def train_step(self, batch: ClipBatch, *, sync: bool, counts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """One step of the method. Waits for the device only if `look`; raises CaclError if the loss is not finite.

        counts: clips of each rank; None: all have as many.
        """
        self._seed_step()
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        with self._autocast():
            parts, keys = self.learner.loss(self.query, batch, self.step, counts)
        # Gradients are averaged over ranks, and are to be those of the mean over all clips.
        weight = len(batch) * len(counts) / sum(counts) if counts else 1.0
        self.optimizer.zero_grad(set_to_none=True)
        (parts.total * weight).backward()

        norm = nn.utils.clip_grad_norm_(self.query.parameters(), self.config.optim.max_grad_norm or math.inf)
        self.finite &= parts.total.isfinite() & norm.isfinite()
        if sync:
            self._check_finite()
        self.optimizer.step()
        self.learner.update(keys)
        self.step += 1
        return parts.metrics | {
            "loss": parts.total.detach(),
            "gradient_norm": norm.detach(),
            "learning_rate": torch.tensor(rate),
        }

    def skip_step(self, *, sync: bool) -> None:
        """A step with too few clips to learn from: nothing changes but its number, and so the learning rate."""
        if sync:
            self._check_finite()
        self.step += 1

    def checkpoint(self, data: str) -> checkpoint.Checkpoint:
        return checkpoint.Checkpoint(
            config=self.config,
            step=self.step,
            data_fingerprint=data,
            model=self.learner.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        self.learner.load_state_dict(saved.model)
        self.optimizer.load_state_dict(saved.optimizer)
        self.step = saved.step

    def _learning_rate(self) -> float:
        optim, train = self.config.optim, self.config.train
        if optim.schedule_per == "epoch":
            return learning_rate_of_epoch(self.step * train.batch_size // self.videos + 1, train.epochs, optim.lr)
        return learning_rate(self.step, self.steps, self.warmup_steps, optim.lr)

    def _check_finite(self) -> None:
        if not self.finite:
            raise CaclError(
                f"step {self.step + 1}: the loss or its gradient is not finite; the last checkpoint is from before "
                "that. Lower optim.lr, set optim.max_grad_norm, or set train.precision = fp32"
            )

    def _seed_step(self) -> None:
        rng = RandomStream(self.config.seed, TRAINING_STEP_STREAM, self.step, distributed.rank())
        torch.manual_seed(rng.integer(0, 2**53))

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()


def train(config: Config, *, resume: bool = False) -> dict[str, Any]:
    """Trains to the end and returns what came of it: the run folder, steps, seconds, the last logged scalars, and how
    many clips were trained on, how many were not, and how many of each file failed, from the first step on.

    resume: go on from the checkpoint in the run folder, if there is one. Raises CaclError in one line for whatever a
    user can mend, Interrupted after a checkpoint when a signal asks to stop.
    """
    run = Path(config.run)
    if (run / checkpoint.CHECKPOINT_NAME).exists() and not resume:
        raise UsageError(f"{run} already holds a run: --resume goes on with it, --set run=... begins another")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"run = {run}: no such folder can be made ({error.strerror})") from None
    with (
        distributed.process_group(config.train.device) as device,
        Console(enabled=distributed.rank() == 0) as report,
    ):
        saved = _saved(config, run, report) if resume else None
        catalog = training_videos(config, report, saved)
        _check_batch(config)
        trainer = Trainer(config, len(catalog.videos), device)
        if saved is not None:
            _restore(trainer, saved, report)
        embedder = config.model.transformer
        if (
            trainer.learner.query.transformer
            and embedder.frozen
            and not embedder.weights
            and embedder.embedder != "light"
        ):
            report.say(
                f"note: the frame embedder {embedder.embedder} is frozen with random weights; give a file of "
                "pre-trained ones as model.transformer.weights, or set model.transformer.frozen = false"
            )
        if distributed.rank() == 0:
            (run / "config.toml").write_text(configuration.to_toml(config))
            run_manifest.write(run, catalog)
        return _run(trainer, catalog, report)


def training_videos(config: Config, report: Console, saved: checkpoint.Checkpoint | None) -> Catalog:
    """The videos of the training split; all of them where nothing is said of splits.

    saved: of the run that goes on, with the videos it began with. Raises CheckpointError if others are there now.
    """
    if not config.data.root:
        raise ConfigError("data.root is not set: give a folder of videos, as in --set data.root=path/to/videos")
    with distributed.main_first():  # the others find its scan in the cache
        found = scan(config.data, min_frames=config.clip.min_frames, progress=partial(report.progress, "scanning"))
    found.check(config.data.max_rejected)
    log_catalog(found)
    chosen = found.only("train") if found.has_splits else found
    report.say(f"{len(chosen.videos)} training videos of {len(found.videos)} in {found.root} (layout {found.layout})")
    if not chosen.videos:
        others = ", ".join(sorted({video.split for video in found.videos if video.split}))
        raise CaclError(
            f"{found.root}: none of its {len(found.videos)} videos belongs to train; their splits are {others}"
        )
    if saved is None or saved.data_fingerprint == chosen.fingerprint:
        return chosen
    # Files that are gone or damaged by now are left to fail, as they would have without the interruption.
    begun = run_manifest.read(Path(config.run), saved.data_fingerprint, found, chosen)
    if begun is None or 1 - len(chosen.videos) / len(begun.videos) > config.data.max_rejected:
        raise CheckpointError(
            f"{config.run} was begun with other training videos than {found.root} holds now: begin another run"
        )
    report.say(f"{len(begun.videos) - len(chosen.videos)} training videos are gone or damaged since the run began")
    return begun


def _run(trainer: Trainer, catalog: Catalog, report: Console) -> dict[str, Any]:
    config, run, started = trainer.config, Path(trainer.config.run), time.monotonic()
    sampler = ClipSampler(catalog.videos, config.clip, config.augment, config.seed)
    choice = choose_backend(config.loader, trainer.device)
    report.say(f"loader: {choice.name}, {choice.reason}")
    backend = build_backend(choice.name, catalog, config, trainer.device, distributed.local_world())
    plans = sampler.batches(
        trainer.step, trainer.steps, config.train.batch_size, distributed.rank(), distributed.world()
    )
    failure_log = FailureLog(catalog, config, trainer.step, report.say, writes=distributed.rank() == 0)
    first, window, scalars, data = trainer.step, _Window(), {}, catalog.fingerprint
    with ScalarLog(run, report, first_step=first, steps=trainer.steps) as scalar_log, _stop_signals() as received:
        for batch in window.timed(backend.batches(plans)):
            step = trainer.step + 1
            # All ranks pass over the same steps, and stop after the same one, whichever of them was told to.
            counts, signals = zip(*distributed.exchange(len(batch), max(received, default=0)), strict=True)
            enough, stop = min(counts) >= trainer.learner.min_clips_per_rank, max(signals)
            if sum(counts) < config.train.batch_size:
                _account(failure_log, step, batch, enough)
            logging, saving = step % config.train.log_every == 0, step % config.train.checkpoint_every == 0
            last = step == trainer.steps or stop > 0
            sync = logging or saving or last or trainer.device.type == "cpu"
            if enough:
                metrics = trainer.train_step(_to(batch, trainer.device), sync=sync, counts=counts)
                window.add(metrics, sum(counts))
            else:
                trainer.skip_step(sync=sync)
            if (logging or last) and window.steps:
                scalars = window.mean()
                skipped = {"clips_skipped": failure_log.clips} if failure_log.clips else {}
                epoch = step * config.train.batch_size / len(catalog.videos)
                scalar_log.write(step, scalars | skipped | {"epoch": epoch})
            if (saving or last) and distributed.rank() == 0:
                checkpoint.save(run / checkpoint.CHECKPOINT_NAME, trainer.checkpoint(data))
            if stop and step < trainer.steps:
                raise Interrupted(
                    f"stopped by {signal.Signals(stop).name} after step {step} of {trainer.steps}; --resume goes on"
                )
    if distributed.rank() == 0:
        state = trainer.checkpoint(data)
        EncoderWeights.of_checkpoint(state, str(run)).save(run / ENCODERS_NAME)
    if failure_log.clips:
        report.say(
            f"clips not trained on: {failure_log.clips}, files that failed: {len(failure_log.files)} ({failure_log.file})"
        )
    return {
        "run": str(run),
        "steps": trainer.steps,
        "steps_taken": trainer.step - first,
        "seconds": time.monotonic() - started,
        "scalars": scalars,
        "clips_trained": trainer.step * config.train.batch_size - failure_log.clips,
        "clips_skipped": failure_log.clips,
        "files_failed": dict(failure_log.files),
    }


def _account(failure_log: FailureLog, step: int, batch: ClipBatch, enough: bool) -> None:
    """Enters the clips of all ranks that this step is not trained on."""
    unused = [] if enough else list(zip(batch.index.tolist(), batch.video.tolist(), strict=True))
    ranks = distributed.gather_objects((batch.failures, unused))
    failure_log.enter(
        step, [f for failures, _ in ranks for f in failures], [clip for _, unused in ranks for clip in unused]
    )


class _Window:
    """Means of what the steps since the last log line reported, kept on the device until they are read."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps, self.clips, self.waited, self.since = 0, 0, 0.0, time.monotonic()

    def timed(self, batches: Iterator[ClipBatch]) -> Iterator[ClipBatch]:
        """Passes batches on and counts the time spent waiting for them."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            self.waited += time.monotonic() - asked
            yield batch

    def add(self, metrics: dict[str, Tensor], clips: int) -> None:
        """clips: of all ranks."""
        self.steps += 1
        self.clips += clips
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def mean(self) -> dict[str, float]:
        """Waits for the device, returns the means with the speed of the window, and begins a new one."""
        values = torch.stack([value.float().cpu() for value in self.sums.values()]) / self.steps
        seconds = time.monotonic() - self.since
        scalars = dict(zip(self.sums, values.tolist(), strict=True))
        scalars |= {"clips_per_second": self.clips / seconds, "data_wait_share": self.waited / seconds}
        self.clear()
        return scalars


def _saved(config: Config, run: Path, report: Console) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from, if there is one."""
    if not (run / checkpoint.CHECKPOINT_NAME).exists():
        report.say(f"{run} holds no checkpoint yet: beginning at step 0")
        return None
    saved = checkpoint.load(run)
    changed = [line for line in configuration.differences(saved.config, config) if not line.startswith(MAY_CHANGE)]
    if changed:
        raise CheckpointError(
            f"{run} was begun with another configuration ({'; '.join(changed)}): set it back, or begin another run"
        )
    return saved


def _restore(trainer: Trainer, saved: checkpoint.Checkpoint, report: Console) -> None:
    run = trainer.config.run
    try:
        trainer.restore(saved)
    except (RuntimeError, ValueError, KeyError):
        raise CheckpointError(f"{run}: its weights do not fit its configuration; begin another run") from None
    report.say(f"resuming {run} after step {saved.step} of {trainer.steps}")


def _check_batch(config: Config) -> None:
    share, rest = divmod(config.train.batch_size, distributed.world())
    if rest or share < 2 * config.contrast.shuffle_bn_groups or share % config.contrast.shuffle_bn_groups:
        raise ConfigError(
            f"train.batch_size = {config.train.batch_size} does not divide into at least 2 clips for each of "
            f"{distributed.world()} processes and contrast.shuffle_bn_groups = {config.contrast.shuffle_bn_groups}"
        )


def _bf16(precision: str, device: torch.device) -> bool:
    if precision == "bf16" and device.type == "cpu":
        # Measured with torch 2.15: weight gradients of some bf16 convolutions differ from call to call on a CPU, and
        # are sometimes not finite. docs/training.md has the figures.
        raise ConfigError("train.precision = bf16: does not reproduce on a CPU; say auto or fp32")
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def _wrapped(query: nn.Module, config: Config, device: torch.device) -> nn.Module:
    if config.train.compile:
        query = torch.compile(query)  # type: ignore[assignment]  # typed as a callable
    if distributed.world() > 1:
        query = DistributedDataParallel(query, device_ids=[device.index] if device.type == "cuda" else None)
    return query


def _to(batch: ClipBatch, device: torch.device) -> ClipBatch:
    if device.type == "cpu":
        return batch
    return replace(
        batch,
        views=tuple(to_device(view, device) for view in batch.views),
        order=to_device(batch.order, device),
        video=to_device(batch.video, device),
        index=to_device(batch.index, device),
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM while open; the loop looks at the list before a step."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
