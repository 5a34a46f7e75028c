"""`cacl eval`: what a trained encoder is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cacl.commands.options import AsJson, Imports, Labels, Overrides, PublishedByDefault, Report
from cacl.commands.output import is_first_process, print_message, print_result, print_table

if TYPE_CHECKING:
    from cacl.config import Config
    from cacl.evaluation.finetuned import FinetunedTable
    from cacl.evaluation.recognition import RecognitionTable
    from cacl.evaluation.retrieval import RetrievalTable
    from cacl.evaluation.score_tables import ScoreTable


class ClassifierName(StrEnum):
    """The keys of `CLASSIFIERS` in cacl/evaluation/recognition.py, which would have to be imported for them."""

    KNN = "knn"
    LINEAR = "linear"
    ATTENTIVE = "attentive"


app = typer.Typer(help="Measure what a trained encoder is worth.", no_args_is_help=True)


@app.command()
def retrieval(
    checkpoint: Annotated[Path, typer.Argument(help="Run folder, checkpoint, or encoders.safetensors.")],
    label: Labels = None,
    queries: Annotated[
        Literal["test", "val"] | None,
        typer.Option(help="Split whose videos are the queries, by default test; choose settings on val."),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Let the videos of each value of a column query all others: one group out."
        ),
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option(metavar="ROOT", help="Query another data set: its training videos, or all if it has no splits."),
    ] = None,
    points: PublishedByDefault = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Print R@1 and mAP of each class, too.")] = False,
    report: Report = None,
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Retrieve training videos with those of another split, beside untrained encoders and baselines.

    The configuration is the checkpoint's own; --set data.root=... evaluates on other videos, and --gallery ROOT lets
    these query still other ones.

    Features are: published, the map of a CNN and the vector of a transformer, as in the release; map, the last feature
    map, max-pooled; vector, the average pool or CLS; concatenation, the vectors of both encoders.
    """
    from cacl import config as configuration
    from cacl.checkpoints.encoders import EncoderWeights
    from cacl.errors import UsageError
    from cacl.evaluation.retrieval import evaluate_retrieval
    from cacl.reports.retrieval import write_retrieval_page

    if groups and queries:
        raise UsageError(f"--queries {queries} with --groups {groups}: each group queries the others; leave one out")
    if groups and gallery:
        raise UsageError(f"--gallery {gallery} with --groups {groups}: groups are of one data set; leave one out")
    _make_folder(report)
    weights = EncoderWeights.read(checkpoint)
    config = configuration.override(weights.config, overrides or [], check_names=False)
    tables = evaluate_retrieval(
        weights,
        config,
        label or ["label"],
        _feature_cache(checkpoint),
        queries or "test",
        groups=groups,
        gallery=gallery,
        points=points or ["published"],
    )
    print_result([table.to_json() for table in tables], as_json, lambda: _print_retrieval(tables, per_class))
    _write_report(write_retrieval_page, report, tables, config)


@app.command()
def recognition(
    checkpoint: Annotated[Path, typer.Argument(help="Run folder, checkpoint, or encoders.safetensors.")],
    label: Labels = None,
    classifier: Annotated[
        list[ClassifierName] | None,
        typer.Option("--classifier", help="What classifies frozen features; may be repeated. All, if none is given."),
    ] = None,
    queries: Annotated[
        Literal["test", "val"], typer.Option(help="Split whose videos are classified; compare trainings on val.")
    ] = "test",
    points: Annotated[
        list[str] | None, typer.Option("--features", help="Feature for k-NN and linear; repeatable. Default: vector.")
    ] = None,
    crops: Annotated[
        Literal["1", "3"], typer.Option(help="Crops of each clip for a fine-tuned network: the centre, or three.")
    ] = "1",
    average: Annotated[
        Literal["logits", "probabilities"], typer.Option(help="What a fine-tuned network averages over its clips.")
    ] = "logits",
    report: Report = None,
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Classify videos by features of frozen encoders, trained and untrained, and by those of baselines.

    A run of `cacl finetune` classifies by itself, in its best.pt, unless --classifier is given.
    Settings of classifiers are chosen on val, or on some of the training videos, and never on the videos that are
    judged. --json has the accuracy of each class and the confusions, too. Features are those of `cacl eval retrieval`;
    the attentive probe takes the positions of the last map of a CNN, and all tokens of a transformer.
    """
    from cacl import config as configuration
    from cacl.checkpoints.encoders import EncoderWeights
    from cacl.evaluation.finetuned import evaluate_finetuned, load_finetuned
    from cacl.evaluation.recognition import CLASSIFIERS, evaluate_recognition
    from cacl.reports.recognition import write_recognition_page

    _make_folder(report)
    if not classifier and (saved := load_finetuned(checkpoint)):
        _check_options_for_network(checkpoint, saved.config, label, points)
        config = configuration.override(saved.config, overrides or [], check_names=False)
        table = evaluate_finetuned(saved, config, split=queries, crops=3 if crops == "3" else 1, average=average)
        tables, result = [table], table.to_json()
    else:
        _check_options_for_features(points, classifier, crops, average)
        weights = EncoderWeights.read(checkpoint)
        config = configuration.override(weights.config, overrides or [], check_names=False)
        tables = evaluate_recognition(
            weights,
            config,
            label or ["label"],
            _feature_cache(checkpoint),
            classifier or list(CLASSIFIERS),
            queries,
            points=points or ["vector"],
        )
        result = [table.to_json() for table in tables]
    print_result(result, as_json, lambda: _print_recognition(tables))
    _write_report(write_recognition_page, report, tables, config)


def _check_options_for_network(
    checkpoint: Path, config: Config, label: Sequence[str] | None, points: Sequence[str] | None
) -> None:
    """Refuses what a fine-tuned network decides itself."""
    from cacl.errors import UsageError

    if label or points:
        own = f"a fine-tuned network has its own labels and features ({config.finetune.label})"
        raise UsageError(f"{checkpoint}: {own}; leave --label and --features out, or add --classifier")


def _check_options_for_features(
    points: Sequence[str] | None, classifier: Sequence[str] | None, crops: str, average: str
) -> None:
    """Refuses what would do nothing where frozen features are classified."""
    from cacl.errors import UsageError
    from cacl.evaluation.recognition import CLASSIFIERS

    if crops == "3" or average == "probabilities":
        given = "--crops 3" if crops == "3" else "--average probabilities"
        raise UsageError(f"{given}: only the network of a run of `cacl finetune` takes it; leave it out")
    if points and classifier and all(CLASSIFIERS[name].takes_tokens for name in classifier):
        raise UsageError(f"--features {points[0]} --classifier {classifier[0]}: that takes tokens; leave one out")


def _feature_cache(checkpoint: Path) -> Path:
    return (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "features"


def _make_folder(report: Path | None) -> None:
    """Makes the folder of a report if one was given, so that an evaluation is not in vain."""
    from cacl.reports.page import make_report_folder

    if report is not None:
        make_report_folder(report)


def _write_report(write: Callable[..., Path], folder: Path | None, tables: Sequence[Any], config: Config) -> None:
    """Writes the page of the results if a folder was given, and says where it is."""
    if folder is None or not is_first_process():
        return
    from cacl.reporting.console import Console

    with Console() as console:
        page = write(folder, tables, config, partial(console.progress, "previews"))
    print_message(f"report: {page}")


def _print_retrieval(tables: Sequence[RetrievalTable], per_class: bool) -> None:
    from cacl.evaluation.score_tables import interval_note, retrieval_scores

    for table in tables:
        _print_scores(retrieval_scores(table))
        if per_class:
            _print_classes(table)
    print(interval_note("the queries"))


def _print_recognition(tables: Sequence[RecognitionTable | FinetunedTable]) -> None:
    from cacl.evaluation.score_tables import interval_note, recognition_scores

    for table in tables:
        _print_scores(recognition_scores(table))
    print(interval_note("the videos that are classified"))


def _print_scores(scores: ScoreTable) -> None:
    print(scores.title)  # As the title of the table, it would be broken at the width of the table.
    if scores.remark:
        print(scores.remark)
    print_table(scores.header, scores.rows)


def _print_classes(table: RetrievalTable) -> None:
    """Prints R@1 and mAP of each class, four features in a table, since more do not fit into 100 columns."""
    found = {name: scores.by_class for name, scores in table.scores.items() if scores.by_class}
    for score, place in (("R@1", 0), ("mAP", -1)):
        print(f"{score} of each class")
        for first in range(0, len(found), 4):
            names = list(found)[first : first + 4]
            rows = [[label, *(f"{100 * found[name][label][place]:.1f}" for name in names)] for label in found[names[0]]]
            print_table([table.label, *names], rows)
