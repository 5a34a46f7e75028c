"""`cacl ablate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacl.commands.completion import complete_recipe
from cacl.commands.options import AsJson, Imports, Labels, Overrides, PublishedByDefault
from cacl.commands.output import print_result, print_table

if TYPE_CHECKING:
    from cacl.ablation.comparison import Cell, ComparisonTable, Spread
    from cacl.ablation.rows import Row
    from cacl.ablation.runs import AblationResult
    from cacl.config import Config


RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="NAME_OR_FILE", help="Recipe (see `cacl recipes`) or TOML file.", autocompletion=complete_recipe
    ),
]
RowTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--row",
        metavar='"NAME: KEY=VALUE ..."',
        help="Row, and what it changes; may be repeated. Default: the parts of the method.",
    ),
]
RowsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TOML file with a table for each row, and the keys it changes.")
]


def ablate(
    recipe: RecipeName,
    run: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of all runs. Default: the recipe's `run`, and _ablation.")
    ] = None,
    row: RowTexts = None,
    rows: RowsFile = None,
    reference: Annotated[
        str, typer.Option(metavar="ROW", help="Row that the others are compared with; by default the recipe itself.")
    ] = "recipe",
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds that each row is trained with.")] = "0,1,2",
    labels: Labels = None,
    queries: Annotated[
        Literal["test", "val"], typer.Option(help="Split whose videos are the queries; settings are chosen on val.")
    ] = "val",
    points: PublishedByDefault = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on with the ablation in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only print the rows and what each changes.")] = False,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe with some of its keys changed, with several seeds, and compare the trainings by retrieval.

    Without --row and --rows, the rows leave out parts of the method: the transformer and the order, the CNN and the
    order, the clips played backwards, the order, and the contrast. The recipe itself is always among them, unless
    --reference names another row.

    Every run has a folder of its own, as `cacl train` writes it. The table is in ablation.json after each run.
    """
    from cacl.config import load

    base = load(recipe, overrides or [])
    chosen = _choose_rows(base, row or [], rows, reference)
    folder, numbers = Path(run or f"{base.run}_ablation"), _parse_seeds(seeds, overrides or [])
    if dry_run:
        _print_rows(chosen, base, folder, numbers, as_json)
        return
    from cacl.ablation import runs

    ablation = runs.Ablation(
        folder=folder,
        recipe=base,
        rows=chosen,
        reference=reference,
        seeds=numbers,
        labels=labels or ["label"],
        query_split=queries,
        points=points or ["published"],
    )
    result = runs.ablate(ablation, resume=resume)
    print_result(result.to_json(), as_json, lambda: _print_tables(result))
    result.check()


def _choose_rows(recipe: Config, texts: list[str], file: Path | None, reference: str) -> list[Row]:
    from cacl.ablation.rows import method_rows, parse_row, read_rows, with_recipe

    rows = [*(read_rows(file, recipe) if file else []), *(parse_row(text, recipe) for text in texts)]
    return with_recipe(rows or method_rows(recipe), recipe, reference)


def _parse_seeds(text: str, overrides: list[str]) -> list[int]:
    from cacl.errors import UsageError

    if any(override.partition("=")[0].strip() == "seed" for override in overrides):
        raise UsageError("--set seed: --seeds names the seeds of an ablation")
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UsageError(f"--seeds {text}: name different numbers from 0 on, as in --seeds 0,1,2")
    return [int(part) for part in parts]


def _print_rows(rows: list[Row], recipe: Config, folder: Path, seeds: list[int], as_json: bool) -> None:
    from cacl.config import differences, to_dict

    def print_changes() -> None:
        print(f"{folder}: {len(rows)} rows, seeds {', '.join(map(str, seeds))}")
        width = max(len(row.name) for row in rows)
        for row in rows:
            print(f"{row.name:{width}}  {'; '.join(differences(recipe, row.config)) or 'no change'}")

    values = {"run": str(folder), "seeds": seeds, "rows": {row.name: to_dict(row.config) for row in rows}}
    print_result(values, as_json, print_changes)


def _print_tables(result: AblationResult) -> None:
    from cacl.evaluation.metrics import CONFIDENCE, RESAMPLES
    from cacl.evaluation.retrieval import SCORES
    from cacl.evaluation.videos import SPLIT_NAMES

    ablation = result.ablation
    several = len(ablation.seeds) > 1
    for table in result.comparisons():
        queries = f"{table.num_queries} {SPLIT_NAMES[ablation.query_split]} videos"
        print(f"retrieval by {table.label}: {queries} query the training videos of {table.num_classes} classes")
        for place in (0, len(SCORES) - 1):
            header = ["row", "feature", SCORES[place], *(["range"] if several else []), "difference"]
            print_table([*header, f"{CONFIDENCE:.0%}"], list(_rows_of(result, table, place, several)))
    for (name, seed), error in result.errors.items():
        print(f"failed: {name}, seed {seed}: {error}")
    seeds = ", ".join(map(str, ablation.seeds))
    spread = f"mean ± standard deviation and range over seeds {seeds}" if several else f"seed {seeds} alone"
    print(
        f"in %: {spread}; difference to row {ablation.reference!r}, paired by seed and query video\n"
        f"{CONFIDENCE:.0%}: intervals of the difference by {RESAMPLES} bootstrap samples of the queries; they say "
        "nothing of other seeds"
    )


def _rows_of(result: AblationResult, table: ComparisonTable, place: int, several: bool) -> Iterator[list[str]]:
    """The rows of the table of one score, which stands at this place in `SCORES`."""
    names = [row.name for row in result.ablation.rows]
    cells = {(cell.row, cell.feature): cell for cell in table.cells}
    features = list(dict.fromkeys(feature for row, feature in cells if row in names))
    empty = ["-"] * (4 if several else 3)
    for (row, feature), cell in cells.items():
        if row not in names:
            yield [row, feature, *_values(cell, place, several)]
    for row in names:
        failed = [str(seed) for name, seed in result.errors if name == row]
        for feature in features if len(failed) < len(result.ablation.seeds) else []:
            cell = cells.get((row, feature))
            yield [row, feature, *(_values(cell, place, several) if cell else empty)]
        if failed:
            yield [row, f"seed {', '.join(failed)} failed", *empty]


def _values(cell: Cell, place: int, several: bool) -> list[str]:
    spread, difference = cell.spread, cell.difference
    if not cell.feature:  # A baseline is the same with every seed.
        return [f"{100 * spread.mean[place]:.1f}", *[""] * (3 if several else 2)]
    score = [_mean(spread, place)]
    if several:
        score.append(f"{100 * spread.lowest[place]:.1f} to {100 * spread.highest[place]:.1f}")
    if difference is None:
        return [*score, "", ""]
    interval = f"{100 * difference.low[place]:+.1f} to {100 * difference.high[place]:+.1f}"
    return [*score, _mean(difference.spread, place, sign="+"), interval]


def _mean(spread: Spread, place: int, sign: str = "") -> str:
    deviation = "" if spread.deviation is None else f" ± {100 * spread.deviation[place]:.1f}"
    return f"{100 * spread.mean[place]:{sign}.1f}{deviation}"
