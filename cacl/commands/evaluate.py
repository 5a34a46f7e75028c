"""`cacl eval`: what a trained encoder is worth."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacl.commands.options import AsJson, Imports, Labels, Overrides, PublishedByDefault
from cacl.commands.output import print_result, print_table

if TYPE_CHECKING:
    from cacl.evaluation.finetuned import FinetunedTable
    from cacl.evaluation.recognition import RecognitionTable
    from cacl.evaluation.retrieval import RetrievalTable


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

    if groups and queries:
        raise UsageError(f"--queries {queries} with --groups {groups}: each group queries the others; leave one out")
    if groups and gallery:
        raise UsageError(f"--gallery {gallery} with --groups {groups}: groups are of one data set; leave one out")
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
    print_result([table.to_json() for table in tables], as_json, lambda: _print_tables(tables, per_class))


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
        Literal["logits", "probabilities"],
        typer.Option(help="What a fine-tuned network averages over the clips of a video."),
    ] = "logits",
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
    from cacl.errors import UsageError
    from cacl.evaluation.finetuned import evaluate_finetuned, load_finetuned
    from cacl.evaluation.recognition import CLASSIFIERS, evaluate_recognition

    if not classifier and (saved := load_finetuned(checkpoint)):
        if label or points:
            own = f"a fine-tuned network has its own labels and features ({saved.config.finetune.label})"
            raise UsageError(f"{checkpoint}: {own}; leave --label and --features out, or add --classifier")
        config = configuration.override(saved.config, overrides or [], check_names=False)
        table = evaluate_finetuned(saved, config, split=queries, crops=3 if crops == "3" else 1, average=average)
        print_result(table.to_json(), as_json, lambda: _print_finetuned(table))
        return
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
    print_result([table.to_json() for table in tables], as_json, lambda: _print_recognition(tables))


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


def _print_finetuned(table: FinetunedTable) -> None:
    from cacl.evaluation.metrics import CONFIDENCE, RESAMPLES
    from cacl.evaluation.videos import SPLIT_NAMES

    crops = "three crops" if table.crops == 3 else "the centre crop"
    print(
        f"fine-tuned {table.encoder} by {table.label}: {table.num_videos} {SPLIT_NAMES[table.split]} videos of "
        f"{len(table.classes)} classes"
    )
    print(f"after step {table.step}, mean {table.average} of {table.clips_per_video} clips in {crops}")
    chance = 100 / len(table.classes)
    rows = [["chance", f"{chance:.1f}", "", f"{min(100, 5 * chance):.1f}", f"{chance:.1f}"]]
    for name, result in table.results.items():
        top1, *others = (f"{100 * value:.1f}" for value in (result.top1, result.top5, result.mean_per_class))
        rows.append([name, top1, _interval(result.top1_interval), *others])
    print_table(["classifier", "top-1", f"{CONFIDENCE:.0%}", "top-5", "mean per class"], rows)
    print(f"in %; {CONFIDENCE:.0%}: interval by {RESAMPLES} bootstrap samples of the videos that are classified")


def _print_recognition(tables: Sequence[RecognitionTable]) -> None:
    from cacl.evaluation.metrics import CONFIDENCE, RESAMPLES
    from cacl.evaluation.recognition import CLASSIFIERS
    from cacl.evaluation.videos import SPLIT_NAMES

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    for table in tables:
        if table.validation_is_drawn:
            chosen_on = f"{table.num_validation} of the {table.num_train + table.num_validation} training videos"
        else:
            chosen_on = f"{table.num_validation} validation videos beside {table.num_train} training videos"
        print(
            f"{CLASSIFIERS[table.classifier].title} by {table.label}: {table.num_test} {SPLIT_NAMES[table.split]} "
            f"videos of {len(table.classes)} classes\nsettings chosen on {chosen_on}, which it then learns from, too"
        )
        header = ["feature", "top-1", f"{CONFIDENCE:.0%}", "top-5", "mean per class", "setting"]
        top1, top5 = map(percent, table.chance)
        rows = [["chance", top1, "", top5, top1, ""]]
        for name, (setting, _, result) in table.results.items():
            accuracies = map(percent, (result.top5, result.mean_per_class))
            chosen = ", ".join(f"{key} {value:g}" for key, value in setting.items())
            rows.append([name, percent(result.top1), _interval(result.top1_interval), *accuracies, chosen])
        print_table(header, rows)
    print(f"in %; {CONFIDENCE:.0%}: intervals by {RESAMPLES} bootstrap samples of the videos that are classified")


def _print_tables(tables: Sequence[RetrievalTable], per_class: bool) -> None:
    from cacl.evaluation.metrics import CONFIDENCE, RESAMPLES
    from cacl.evaluation.retrieval import SCORES
    from cacl.evaluation.videos import SPLIT_NAMES

    for table in tables:
        # As the title of the table, it would be broken at the width of the table.
        if table.query_split:
            queried = f"videos of {table.gallery}," if table.gallery else "training videos"
            who = f"{table.num_queries} {SPLIT_NAMES[table.query_split]} videos query {table.num_gallery} {queried}"
        else:
            who = f"{table.num_queries} videos in {table.num_folds} groups by {table.groups} query the other groups,"
        print(f"retrieval by {table.label}: {who} of {table.num_classes} classes")
        # The first score and the last one have intervals beside them.
        header = ["feature", SCORES[0], f"{CONFIDENCE:.0%}", *SCORES[1:], f"{CONFIDENCE:.0%}"]
        rows = []
        for name, scores in table.scores.items():
            values = [f"{100 * value:.1f}" for value in scores.means]
            first, last = ("", "") if scores.intervals is None else map(_interval, scores.intervals[:: len(SCORES) - 1])
            rows.append([name, values[0], first, *values[1:], last])
        print_table(header, rows)
        if per_class:
            _print_classes(table)
    print(f"in %; {CONFIDENCE:.0%}: intervals by {RESAMPLES} bootstrap samples of the queries")


def _print_classes(table: RetrievalTable) -> None:
    """Prints R@1 and mAP of each class, four features in a table, since more do not fit into 100 columns."""
    found = {name: scores.by_class for name, scores in table.scores.items() if scores.by_class}
    for score, place in (("R@1", 0), ("mAP", -1)):
        print(f"{score} of each class")
        for first in range(0, len(found), 4):
            names = list(found)[first : first + 4]
            rows = [[label, *(f"{100 * found[name][label][place]:.1f}" for name in names)] for label in found[names[0]]]
            print_table([table.label, *names], rows)


def _interval(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f}"
