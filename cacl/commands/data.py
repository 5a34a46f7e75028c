"""`cacl data`: which videos there are, the same ones prepared for training, and some to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacl.commands.options import AsJson, ConfigName, Imports, Overrides
from cacl.commands.output import is_first_process, print_result

if TYPE_CHECKING:
    from cacl.loaders.catalog.catalog import Catalog
    from cacl.loaders.prepared.shard import Shard
    from cacl.loaders.prepared.summary import PrepareSummary
    from cacl.loaders.prepared.verify import VerifyResult

MAX_NAMED_VALUES = 8
"""The values of a property of the videos that a scan names, such as codecs; the commonest come first."""

app = typer.Typer(
    help="Scan folders of videos, prepare them for training, or make synthetic ones.", no_args_is_help=True
)


@app.command()
def scan(
    root: Annotated[
        str | None,
        typer.Argument(
            help="Folder of videos, list of them, or folder or address of a prepared set; none: as configured.",
            show_default=False,
        ),
    ] = None,
    config: ConfigName = None,
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Decode every video of a folder once, and say what is usable, what is not, and why."""
    from functools import partial

    from cacl import config as configuration
    from cacl.errors import UsageError
    from cacl.loaders.catalog.scan import scan as scan_folder
    from cacl.reporting.console import Console

    resolved = configuration.load(config, overrides or [], {"data.root": root})
    if not resolved.data.root and not resolved.data.roots:
        raise UsageError("nothing to scan: name a folder of videos, or a configuration with data.root or data.roots")
    with Console() as console:
        scanning = partial(console.progress, "scanning")
        catalog = scan_folder(resolved.data, min_frames=resolved.clip.frames, progress=scanning)
    print_result(catalog.to_json(), as_json, lambda: _print_roots(catalog))
    catalog.check(resolved.data.max_rejected_share)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos, or a list of them.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to make, or to go on with.")],
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side; smaller videos stay as they are.")] = 128,
    gop: Annotated[int, typer.Option(help="Frames from one key frame to the next.")] = 16,
    crf: Annotated[int, typer.Option(help="Quality: lower is better and larger.")] = 23,
    codec: Annotated[
        Literal["h264", "hevc"], typer.Option(help="HEVC is smaller at equal quality, and slower on a CPU.")
    ] = "h264",
    workers: Annotated[int, typer.Option(min=0, help="Videos at a time; 0: one per core.")] = 0,
    clips: Annotated[int, typer.Option("--verify", min=0, help="Compare this many clips with their sources.")] = 0,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Make part I of N, here or on another machine; `join` ends it.", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Make small videos of constant rate that a clip is quickly read from, and an index of them. Finished ones stay."""
    import signal
    from functools import partial

    from cacl import config as configuration
    from cacl.loaders.prepared.prepare import prepare as prepare_set
    from cacl.loaders.prepared.shard import Shard
    from cacl.loaders.prepared.transcode import TranscodeSettings
    from cacl.loaders.prepared.verify import verify
    from cacl.reporting.console import Console

    part = Shard.parse(shard) if shard is not None else None
    config = configuration.override(configuration.from_dict({"data": {"root": str(source)}}), overrides or [])
    settings = TranscodeSettings(short_side=short_side, gop=gop, crf=crf, codec=codec)
    # A terminated process ends as after Ctrl-C, and the same command goes on with what is there.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Console() as console:
        preparing, verifying = partial(console.progress, "preparing"), partial(console.progress, "verifying")
        summary = prepare_set(config.data, target, settings, workers=workers, progress=preparing, shard=part)
        verified = verify(summary, clips, progress=verifying) if clips else None
    result = summary.to_json() | {"verified": verified and verified._asdict()}
    if part:
        print_result(result | {"shard": str(part)}, as_json, lambda: _print_shard(summary, part, verified))
        return  # How many rejected sources are too many is for `join` to say.
    print_result(result, as_json, lambda: _print_prepared(summary, verified))
    summary.check(config.data.max_rejected_share)


@app.command()
def join(
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder that all shards were made in or copied to.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make one prepared set of shards that `prepare --shard` made: check them, merge their logs, write the index."""
    from dataclasses import replace

    from cacl import config as configuration
    from cacl.errors import UsageError
    from cacl.loaders.prepared.join import join as join_shards

    defaults = configuration.from_dict({})
    config = configuration.override(defaults, overrides or [])
    if replace(config.data, max_rejected_share=defaults.data.max_rejected_share) != defaults.data:
        raise UsageError("of data.*, only data.max_rejected_share is set for a join: the shards tell the rest")
    summary = join_shards(target)
    print_result(summary.to_json(), as_json, lambda: _print_prepared(summary, None))
    summary.check(config.data.max_rejected_share)


@app.command()
def synth(
    root: Annotated[Path, typer.Argument(help="Folder to make.")],
    train_videos: Annotated[int, typer.Option("--train", help="Training videos per motion and appearance.")] = 6,
    test_videos: Annotated[int, typer.Option("--test", help="Test videos per motion and appearance.")] = 2,
    val_videos: Annotated[int, typer.Option("--val", help="Validation videos, likewise.")] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same files.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a small labelled set of videos in which motion and appearance are independent."""
    from cacl.loaders.synthetic.dataset import synthesise
    from cacl.reporting.console import Console

    with Console() as console:
        labels = synthesise(
            root,
            videos_per_pair=(train_videos, test_videos, val_videos) if val_videos else (train_videos, test_videos),
            seed=seed,
            progress=lambda done, total: console.progress("making videos", done, total),
        )
    print_result({"labels": str(labels)}, as_json, lambda: print(labels))


@app.command()
def look(
    videos: Annotated[
        str | None,
        typer.Argument(help="Folder of videos, list of them, or prepared set, as for `cacl train`: data.root."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the page is written into.")] = Path("look"),
    clips: Annotated[int, typer.Option(min=2, help="Number of clips.")] = 12,
    config: ConfigName = None,
    overrides: Overrides = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Show a few clips as training will see them: both views and the shuffled copy, as a page for the browser.

    Without --config, settings are chosen as `cacl train` chooses them.
    """
    from cacl import config as configuration
    from cacl import distributed
    from cacl.reporting.console import Console
    from cacl.reports.clips import write_clips_page
    from cacl.reports.page import make_report_folder
    from cacl.training.choose_config import choose_config
    from cacl.training.training_videos import find_training_videos

    arguments = {"data.root": videos}
    if config is None:
        settings, given = configuration.load_given(overrides or [], arguments)
    else:
        settings, given = configuration.load(config, overrides or [], arguments), None
    make_report_folder(out, "--out")
    with (
        distributed.process_group(settings.train.device) as device,
        Console(enabled=distributed.rank() == 0) as console,
    ):
        if given is not None:
            settings = choose_config(settings, given, device, console)
        training_videos = find_training_videos(settings, console, None)
        if is_first_process():
            page = write_clips_page(settings, training_videos, clips, out)
            print_result({"page": str(page)}, as_json, lambda: print(page))


def _print_roots(catalog: Catalog) -> None:
    """Prints the catalog of each root, with an empty line between them."""
    for number, part in enumerate(catalog.parts):
        if number:
            print()
        _print_catalog(part)


def _print_catalog(catalog: Catalog) -> None:
    print(f"{catalog.root}: layout {catalog.layout}")
    print(f"{len(catalog.videos)} usable videos, {sum(v.frames for v in catalog.videos)} frames")
    if catalog.videos:
        _print_properties(catalog)
    _print_left_out(catalog)


def _print_properties(catalog: Catalog) -> None:
    """Prints what the videos are like, of which there is at least one."""
    from collections import Counter
    from statistics import median

    videos = catalog.videos
    lengths = [v.frames for v in videos]
    print(f"frames    {min(lengths)} to {max(lengths)}, median {median(lengths):g}")
    for name, values in {
        "codecs": (v.codec for v in videos),
        "sizes": (f"{v.width} x {v.height}" for v in videos),
        "labels": (v.label or "none" for v in videos),
        "splits": (v.split or "none" for v in videos),
    }.items():
        print(f"{name:9} {_commonest(Counter(values))}")
    miscounted = [v for v in videos if v.declared_frames not in (0, v.frames)]
    if miscounted:
        first = miscounted[0]
        print(
            f"{len(miscounted)} headers miscount their frames; what decodes is used "
            f"({first.path}: {first.declared_frames} declared, {first.frames} decode)"
        )


def _commonest(counts: dict[str, int]) -> str:
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_NAMED_VALUES]
    rest = len(counts) - len(shown)
    return ", ".join(f"{name} ({count})" for name, count in shown) + (f", and {rest} more" if rest else "")


def _print_left_out(catalog: Catalog) -> None:
    for note in catalog.notes:
        print(f"note      {note}")
    for path in catalog.missing:
        print(f"missing   {path}: listed, but not there")
    for path, reason in catalog.rejected:
        print(f"rejected  {path}: {reason}")
    if catalog.rejected:
        print(f"{len(catalog.rejected)} of {len(catalog.videos) + len(catalog.rejected)} files rejected")


def _print_shard(summary: PrepareSummary, shard: Shard, verified: VerifyResult | None) -> None:
    print(f"shard {shard} is finished; after all {shard.count}, `cacl data join {summary.target}` writes the index")
    _print_prepared(summary, verified)


def _print_prepared(summary: PrepareSummary, verified: VerifyResult | None) -> None:
    count = len(summary.converted)
    print(f"{summary.target}: {count} videos of {summary.root} (layout {summary.catalog.layout})")
    print(f"{summary.copied} copied, {count - summary.copied} encoded; {summary.kept} of them by an earlier run")
    print(f"{summary.source_bytes / 1e6:.1f} MB became {summary.prepared_bytes / 1e6:.1f} MB")
    _print_left_out(summary.catalog)
    if verified:
        line = f"{verified.clips} clips verified"
        if verified.lowest_psnr_db is not None:
            line += f": PSNR at least {verified.lowest_psnr_db:.1f} dB, median {verified.median_psnr_db:.1f} dB"
        print(line)
