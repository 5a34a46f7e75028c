"""`cacl embed` and `cacl search`: an index of a folder of videos, and what in it is most like another video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacl.commands.options import AsJson, Imports, Overrides, Report
from cacl.commands.output import is_first_process, print_message, print_result, print_table

if TYPE_CHECKING:
    from cacl.search.embed import EmbedSummary
    from cacl.search.query import SearchResult


def embed(
    checkpoint: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, checkpoint, or encoders.safetensors.")],
    videos: Annotated[str, typer.Argument(help="Folder of videos, list of them, or prepared set.")],
    out: Annotated[Path, typer.Option(metavar="INDEX", help="Folder of the index to make, or to bring up to date.")],
    encoder: Annotated[
        Literal["cnn", "transformer"] | None,
        typer.Option(help="Encoder that embeds; by default the CNN, where there is one.", show_default=False),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time between the starts of spans; by default as long as a clip, so that none overlap.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Make an index of the videos of a folder for `cacl search`, or bring it up to date.

    Each video is cut into spans as long as a clip, and an encoder makes a feature of each. Only files that are new or
    have changed are embedded, also after a stop; files that are gone are taken out, and damaged ones are named.
    """
    from cacl.checkpoints.encoders import EncoderWeights
    from cacl.search.embed import embed, settings_for_videos

    weights = EncoderWeights.read(checkpoint)
    config = settings_for_videos(weights.config, videos, overrides or [])
    summary = embed(weights, config, out, encoder, every)
    print_result(summary.to_json(), as_json, lambda: _print_summary(summary))


def search(
    index: Annotated[Path, typer.Argument(help="Folder that `cacl embed` made.")],
    query: Annotated[Path, typer.Argument(help="Video file to search with.")],
    from_seconds: Annotated[
        float, typer.Option("--from", metavar="SECONDS", help="Where the part of the query begins.")
    ] = 0.0,
    to_seconds: Annotated[
        float | None,
        typer.Option("--to", metavar="SECONDS", help="Where it ends; by default with the video.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(help="Number of spans to find.")] = 10,
    report: Report = None,
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Find the spans of indexed videos that are most like a video, or like a part of it.

    The score is the cosine of the features of a span and of the span of the query that is most like it. What of the
    index is the query itself is left out.
    """
    from cacl.reports.page import make_report_folder
    from cacl.reports.search import write_search_page
    from cacl.search.query import search

    if report:
        make_report_folder(report)
    result = search(index, query, from_seconds=from_seconds, to_seconds=to_seconds, top=top, overrides=overrides or [])
    print_result(result.to_json(), as_json, lambda: _print_matches(result))
    if report and is_first_process():
        print_message(f"report: {write_search_page(result, report)}")


def _print_summary(summary: EmbedSummary) -> None:
    for path, reason in summary.rejected:
        print(f"rejected  {path}: {reason}")
    videos = summary.kept + summary.added + summary.changed
    print(
        f"{summary.index}: {summary.spans} spans of {videos} videos: {summary.kept} kept, {summary.added} added, "
        f"{summary.changed} changed, {summary.removed} removed, {len(summary.rejected)} cannot be used"
    )


def _print_matches(result: SearchResult) -> None:
    print(
        f"{result.query}, {result.query_start_seconds:.2f} to {result.query_end_seconds:.2f} s, in {result.spans} "
        f"spans of {result.root}"
    )
    rows = [
        [match.path, f"{match.start_seconds:.2f}", f"{match.end_seconds:.2f}", f"{match.score:.4f}"]
        for match in result.matches
    ]
    print_table(["file", "from (s)", "to (s)", "score"], rows)
    print(f"query embedded in {result.embed_seconds:.2f} s, index searched in {result.search_seconds:.2f} s")
    if result.excluded:
        print(f"spans of the index that are the query itself, and left out: {result.excluded}")
