"""`cacl eval`: what a trained encoder is worth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacl.commands.options import AsJson, Imports, Overrides
from cacl.commands.output import print_result

if TYPE_CHECKING:
    from cacl.evaluation.retrieval import RetrievalTable

app = typer.Typer(help="Measure what a trained encoder is worth.", no_args_is_help=True)


@app.command()
def retrieval(
    checkpoint: Annotated[Path, typer.Argument(help="Run folder, checkpoint, or encoders.safetensors.")],
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Column of the data set's lists to judge by; may be repeated.")
    ] = None,
    queries: Annotated[
        Literal["test", "val"], typer.Option(help="Split whose videos are the queries; choose settings on val.")
    ] = "test",
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Retrieve training videos with those of another split, beside untrained encoders and baselines.

    The configuration is the checkpoint's own; --set data.root=... evaluates on other videos.
    """
    from cacl import config as configuration
    from cacl.checkpoints.encoders import EncoderWeights
    from cacl.evaluation.retrieval import evaluate_retrieval

    weights = EncoderWeights.read(checkpoint)
    config = configuration.override(weights.config, overrides or [])
    feature_cache = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "features"
    tables = evaluate_retrieval(weights, config, label or ["label"], feature_cache, queries)
    print_result([table.to_json() for table in tables], as_json, lambda: _print_tables(tables))


def _print_tables(tables: Sequence[RetrievalTable]) -> None:
    from rich.console import Console
    from rich.table import Table

    from cacl.evaluation.retrieval import TOP_K
    from cacl.evaluation.videos import SPLIT_NAMES

    for table in tables:
        # As the title of the table, it would be broken at the width of the table.
        print(
            f"retrieval by {table.label}: {table.num_queries} {SPLIT_NAMES[table.query_split]} videos query "
            f"{table.num_gallery} training videos of {table.num_classes} classes"
        )
        shown = Table()
        shown.add_column("feature")
        for k in TOP_K:
            shown.add_column(f"R@{k}", justify="right")
        for name, recalls in table.recalls.items():
            shown.add_row(name, *(f"{100 * recall:.1f}" for recall in recalls))
        # Without a terminal rich would take 80 columns, which some of the tables do not fit into.
        Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 100).print(shown)
