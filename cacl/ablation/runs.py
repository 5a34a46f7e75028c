"""The runs of an ablation: each row is trained and judged with each seed, and what is done is not done again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cacl import config as configuration
from cacl import distributed
from cacl.ablation.comparison import ComparisonTable, compare
from cacl.ablation.rows import Row
from cacl.checkpoints.checkpoint import CHECKPOINT_NAME
from cacl.checkpoints.encoders import ENCODERS_NAME, EncoderWeights
from cacl.config import Config
from cacl.errors import CaclError, DataError, UsageError
from cacl.evaluation.feature_points import MissingFeatureError, check_points
from cacl.evaluation.retrieval import RetrievalTable, evaluate_retrieval
from cacl.evaluation.videos import scan_videos, video_labels, videos_of_split
from cacl.files import atomic_write
from cacl.reporting.console import Console
from cacl.training.checkpointer import refused_changes
from cacl.training.run_state import DivergenceError
from cacl.training.stop_signals import TrainingInterruptedError
from cacl.training.trainer import train

log = logging.getLogger(__name__)

RESULT_NAME = "ablation.json"
"""The name of the file in the folder of an ablation that holds what is known so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What is trained and how it is judged."""

    folder: Path
    """The folder that the runs are written into."""
    recipe: Config
    rows: Sequence[Row]
    reference: str
    """The name of the row that the others are compared with."""
    seeds: Sequence[int]
    labels: Sequence[str]
    """The labellings to judge by: `label`, or the names of other columns of the data set's lists."""
    query_split: Literal["test", "val"]
    points: Sequence[str]
    """The features of the encoders to judge, of `FEATURE_POINTS`."""

    def runs(self) -> list[Run]:
        """Returns all runs. Those of one seed stand together, so that an unfinished ablation compares all rows."""
        return [
            Run(
                row=row.name,
                seed=seed,
                config=configuration.replace(
                    row.config,
                    {
                        "run": str(self.folder / row.folder / f"seed{seed}"),
                        "seed": seed,
                        "name": f"{self.recipe.name}: {row.name}, seed {seed}",
                    },
                ),
            )
            for seed in self.seeds
            for row in self.rows
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of an ablation, in a run folder as that of `cacl train`."""

    row: str
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run)

    def __str__(self) -> str:
        """Returns what messages call it."""
        return f"row {self.row!r}, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationResult:
    """What is known of the runs of an ablation."""

    ablation: Ablation
    tables: dict[tuple[str, int], list[RetrievalTable]] = field(default_factory=dict)
    """The results of the runs that are done, by row and seed, one for each label. Of encoders that have none of the
    features that were asked for there is none."""
    errors: dict[tuple[str, int], str] = field(default_factory=dict)
    """What the runs that failed died of, by row and seed."""

    def comparisons(self) -> list[ComparisonTable]:
        """Returns a table for each label, as soon as a run is done."""
        ablation = self.ablation
        names = [row.name for row in ablation.rows]
        of_labels = [
            {key: tables[number] for key, tables in self.tables.items() if tables}
            for number in range(len(ablation.labels))
        ]
        return [compare(found, names, ablation.reference, ablation.recipe.seed) for found in of_labels if found]

    def check(self) -> None:
        """Checks that all runs are done.

        Raises:
            CaclError: Some failed. The message names them.
        """
        if self.errors:
            total = len(self.ablation.rows) * len(self.ablation.seeds)
            named = "; ".join(f"{row}, seed {seed}" for row, seed in self.errors)
            raise CaclError(f"{len(self.errors)} of {total} runs failed: {named}")

    def to_json(self) -> dict[str, Any]:
        """Returns everything as values that JSON can hold."""
        ablation = self.ablation
        return {
            "reference": ablation.reference,
            "seeds": list(ablation.seeds),
            "query_split": ablation.query_split,
            "features": list(ablation.points),
            "rows": {
                row.name: {
                    "changes": configuration.differences(ablation.recipe, row.config),
                    "runs": {str(seed): self._state_of(row, seed) for seed in ablation.seeds},
                }
                for row in ablation.rows
            },
            "tables": [table.to_json() for table in self.comparisons()],
        }

    def _state_of(self, row: Row, seed: int) -> dict[str, str | None]:
        key = (row.name, seed)
        state = "done" if key in self.tables else "failed" if key in self.errors else "missing"
        return {"folder": f"{row.folder}/seed{seed}", "state": state, "error": self.errors.get(key)}


def ablate(ablation: Ablation, *, resume: bool = False) -> AblationResult:
    """Trains and judges every row with every seed, and writes what is known into the folder after each run.

    A run that fails does not keep the others from their turn.

    Args:
        ablation: What is trained and how it is judged.
        resume: Whether runs that are there go on, or are only judged if they are at their end.

    Returns:
        What came of all runs.

    Raises:
        UsageError: A run is there already, or was begun with another configuration than its row has now.
        DataError: The videos that are to judge the rows are missing, or are not the same for all rows.
        TrainingInterruptedError: A signal asked a run to stop, and it saved a checkpoint before it did.
    """
    check_points(ablation.points)
    runs, result = ablation.runs(), AblationResult(ablation=ablation)
    for run in runs:
        _check_begun(run, resume)
    try:
        ablation.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--run {ablation.folder}: no such folder can be made ({error.strerror})") from None
    with distributed.process_group(ablation.recipe.train.device):
        query_paths = _find_queries(ablation)
        at_end = {run.folder for run in runs if (run.folder / ENCODERS_NAME).exists()}
        distributed.barrier()  # Before a rank trains, all have looked.
        # What an interrupted ablation has done is read first, so that the file never holds less than before.
        for number, run in enumerate(sorted(runs, key=lambda run: run.folder not in at_end), 1):
            _log(f"run {number} of {len(runs)}: {run}")
            _train_and_judge(run, result, query_paths)
            if run.folder not in at_end or number == len(runs):
                _write(result)
    return result


def _check_begun(run: Run, resume: bool) -> None:
    """Checks that what lies in the folder of a run belongs to it."""
    if not (run.folder / CHECKPOINT_NAME).exists():
        return
    if not resume:
        raise UsageError(f"{run.folder} already holds a run: --resume goes on with the ablation, --run begins another")
    if changes := refused_changes(configuration.load(run.folder / "config.toml"), run.config):
        raise UsageError(
            f"{run}: {run.folder} was begun with another configuration ({'; '.join(changes)}): set it back, give the "
            "row another name, or begin another ablation with --run"
        )


def _find_queries(ablation: Ablation) -> tuple[str, ...]:
    """Finds the videos that judge the rows before any of them is trained, and returns their paths."""
    found: dict[Any, tuple[str, ...]] = {}
    with Console(enabled=distributed.rank() == 0) as console:
        for row in ablation.rows:
            config = row.config
            if (key := (config.data, config.clip.frames)) in found:
                continue
            catalog = scan_videos(config, console)
            queries, gallery = (videos_of_split(catalog, split) for split in (ablation.query_split, "train"))
            for label in ablation.labels:
                video_labels(catalog, label, queries, gallery)
            found[key] = tuple(catalog.videos[video].path for video in queries)
            if len(set(found.values())) > 1:
                raise DataError(
                    f"row {row.name!r} would be judged by other {ablation.query_split} videos than row "
                    f"{ablation.rows[0].name!r}, and could not be compared: leave its data and clip.frames as they are"
                )
    return next(iter(found.values()))


def _train_and_judge(run: Run, result: AblationResult, query_paths: tuple[str, ...]) -> None:
    """Notes what comes of a run: its tables, or why it failed."""
    key = (run.row, run.seed)
    try:
        train(run.config, resume=True)
        distributed.barrier()  # Rank 0 writes what all ranks read now.
        result.tables[key] = _judge(run, result.ablation, query_paths)
    except TrainingInterruptedError:
        raise
    except DivergenceError as error:
        result.errors[key] = str(error)
    except Exception as error:
        if distributed.world_size() > 1:
            raise  # It may have happened on this rank alone, while the others wait for it.
        result.errors[key] = str(error) if isinstance(error, CaclError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, CaclError):
            _log(f"{run} failed", error)
    if key in result.errors:
        _log(f"{run} failed: {result.errors[key]}")


def _judge(run: Run, ablation: Ablation, query_paths: tuple[str, ...]) -> list[RetrievalTable]:
    """Retrieves as `cacl eval retrieval` does with the run folder."""
    weights = EncoderWeights.read(run.folder / ENCODERS_NAME)
    features = run.folder / "features"
    try:
        tables = evaluate_retrieval(
            weights, run.config, ablation.labels, features, ablation.query_split, points=ablation.points
        )
    except MissingFeatureError:
        return []
    if any(table.query_paths != query_paths for table in tables):
        raise DataError(f"{run.folder}: the {ablation.query_split} videos are others now than when the ablation began")
    return tables


def _write(result: AblationResult) -> None:
    if distributed.rank() == 0:
        with atomic_write(result.ablation.folder / RESULT_NAME) as temporary:
            temporary.write_text(json.dumps(result.to_json(), indent=2), encoding="utf-8")


def _log(message: str, error: Exception | None = None) -> None:
    """Logs between runs, each of which has a console of its own."""
    with Console(enabled=distributed.rank() == 0):
        log.info(message, exc_info=error)
