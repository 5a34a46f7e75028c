"""`cacl finetune`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacl.commands.options import AsJson, ConfigName, Imports, Overrides, TrainingReportFolder
from cacl.commands.output import print_message, print_result, report_on

if TYPE_CHECKING:
    from cacl.config import Config

DEFAULT_RECIPE = "finetune"
"""The recipe where no configuration is given."""


def finetune(
    videos: Annotated[
        str | None,
        typer.Argument(help="Folder of labelled videos, list of them, or prepared set: data.root."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN_OR_CHECKPOINT",
            help="Encoder to begin with: finetune.weights. Without it, the weights are random.",
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that the run is written into: run.")] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="1,2,3",
            help="Official divisions: train on each, in DIR/fold1 and so on, and judge each on its test videos.",
        ),
    ] = None,
    config: ConfigName = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the run folder.")] = False,
    report: TrainingReportFolder = None,
    dry_run: Annotated[bool, typer.Option(help="Only print the resolved configuration.")] = False,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder with a linear classifier on labelled videos.

    Without --config, the recipe `finetune` is taken. What it leaves open comes from the run that --from names.
    """
    from cacl.config import to_dict, to_toml

    arguments = {"data.root": videos, "run": run, "finetune.weights": weights}
    settings = _read_settings(config, overrides or [], arguments, resume=resume)
    if dry_run:
        print_result(to_dict(settings), as_json, lambda: print(to_toml(settings), end=""))
        return
    if folds is not None:
        _finetune_folds(_parse_folds(folds), settings, resume=resume, report=report, as_json=as_json)
        return
    from cacl.training import finetuning

    with report_on(report, settings.run) as on_log:
        summary = finetuning.finetune(settings, resume=resume, on_log=on_log)
    print_result(summary, as_json, lambda: _print_summary(summary))


def _read_settings(
    name_or_file: str | None, overrides: list[str], arguments: dict[str, str | None], *, resume: bool
) -> Config:
    from cacl.config import load

    if name_or_file is None and resume:
        run = Path(load(DEFAULT_RECIPE, overrides, arguments).run)
        begun = next(chain(run.glob("config.toml"), sorted(run.glob("fold*/config.toml"))), None)
        if begun is not None:
            print_message(f"{begun} has the settings of this run")
            return load(begun, overrides, arguments | {"run": str(run)})
    name_or_file = name_or_file or DEFAULT_RECIPE
    weights = load(name_or_file, overrides, arguments).finetune.weights
    if not weights:
        return load(name_or_file, overrides, arguments)
    from cacl.training.finetuning import inherited_settings

    return load(name_or_file, overrides, arguments, inherited_settings(weights))


def _parse_folds(text: str) -> list[int]:
    from cacl.errors import UsageError

    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--folds {text}: name different numbers from 1 on, as in --folds 1,2,3")
    return [int(part) for part in parts]


def _finetune_folds(folds: list[int], settings: Config, *, resume: bool, report: Path | None, as_json: bool) -> None:
    """Trains and judges the folds one after the other, and prints the accuracies and their mean."""
    from statistics import fmean

    from cacl import distributed
    from cacl.config import replace
    from cacl.evaluation.finetuned import check_fold, evaluate_finetuned, load_finetuned
    from cacl.training import finetuning

    configs = {
        fold: replace(settings, {"data.fold": fold, "run": str(Path(settings.run) / f"fold{fold}")}) for fold in folds
    }
    tables = {}
    with distributed.process_group(settings.train.device):
        for own in configs.values():  # before the first of them is trained for hours
            check_fold(own)
        for fold, own in configs.items():
            print_message(f"fold {fold}: {own.run}")
            with report_on(report and report / f"fold{fold}", own.run) as on_log:
                finetuning.finetune(own, resume=resume, on_log=on_log)
            distributed.barrier()  # Rank 0 writes what all ranks read now.
            saved = load_finetuned(Path(own.run))
            assert saved is not None
            tables[fold] = evaluate_finetuned(saved, own)
    top1 = {fold: table.results["fine-tuned"].top1 for fold, table in tables.items()}
    mean = fmean(top1.values())

    def print_accuracies() -> None:
        for fold, value in top1.items():
            print(f"fold {fold}: top-1 {100 * value:.1f} % of {tables[fold].num_videos} test videos")
        print(f"mean of {len(top1)} folds: top-1 {100 * mean:.1f} %")

    result = {"folds": {str(fold): table.to_json() for fold, table in tables.items()}, "mean_top1": mean}
    print_result(result, as_json, print_accuracies)


def _print_summary(summary: dict[str, Any]) -> None:
    best = summary["best"]
    print(f"{summary['run']}: {summary['steps_taken']} of {summary['steps']} steps in {summary['seconds']:.0f} s")
    print(f"best.pt: {100 * best['val_accuracy']:.1f} % of the validation videos, after step {best['step']}")
