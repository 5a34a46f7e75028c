"""The command line: `cacl --help`. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cacl import __version__
from cacl.errors import CaclError

if TYPE_CHECKING:
    from cacl.evaluation.retrieval import RetrievalTable
    from cacl.loaders.catalog.catalog import Catalog
    from cacl.loaders.prepared.prepare import PrepareSummary
    from cacl.loaders.prepared.verify import VerifyResult

app = typer.Typer(
    help="Train video encoders without labels, straight from video files.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(
    help="Look at folders of videos, prepare them for training, make one to try things on.", no_args_is_help=True
)
eval_app = typer.Typer(help="Measure what a trained encoder is worth.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(eval_app, name="eval")

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file; see cacl/recipes/.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key, such as optim.lr=0.1.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def main() -> None:
    """Entry point: errors that a user can mend are one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid UTF-8
    _share_the_cores()
    try:
        app()
    except CaclError as error:
        print(f"cacl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == 130:  # typer turns Ctrl-C into this without a word
            print("cacl: interrupted", file=sys.stderr)
        raise


def _share_the_cores() -> None:
    """Lets threads of torch that wait for each other sleep, in this process and in those that it starts.

    OpenMP reads this as torch is imported, hence here. By default its threads spin while they wait (GNU's, in torch's
    wheels, 300,000 times). Where another process uses one of the cores, even a niced one, they spin away the time that
    the awaited thread needs, and training becomes many times slower. Asleep, they take some microseconds to wake up:
    a tenth of the speed beside free cores, nothing beside a GPU, for which the CPU only starts kernels. Decoding has
    threads of its own. docs/training.md has the figures of benchmarks/scripts/busy_core.py. Whoever sets the variable
    is left alone; GOMP_SPINCOUNT counts for more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if show:
        print(f"cacl {__version__}")
        raise typer.Exit


@app.command()
def train(
    config: ConfigFile = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the run folder.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only print the resolved configuration.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on the videos under data.root; everything goes into the run folder."""
    from cacl import config as configuration

    resolved = configuration.load(config, overrides or [])
    if dry_run:
        _print(configuration.to_dict(resolved), as_json, lambda _: print(configuration.to_toml(resolved), end=""))
        return
    from cacl.training.trainer import train as run_training

    summary = run_training(resolved, resume=resume)
    _print(
        summary,
        as_json,
        lambda s: print(f"{s['run']}: {s['steps_taken']} of {s['steps']} steps in {s['seconds']:.0f} s"),
    )


@app.command()
def bench_loader(
    raw: Annotated[Path, typer.Argument(help="Folder of videos.")],
    prepared: Annotated[
        Path | None, typer.Option(help="The same videos as `cacl data prepare` made them.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    clips: Annotated[int, typer.Option(help="Clips in a measurement, rounded down to whole batches.")] = 256,
    repeats: Annotated[int, typer.Option(help="Measurements of each loader.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder for bench_loader.json and bench_loader.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time the loaders beside those that people write with torch's DataLoader, on the same clips of the same videos."""
    from cacl import config as configuration
    from cacl.benchmarks.harness.output import make_output_dir
    from cacl.benchmarks.loader import command, output
    from cacl.reporting.console import Console

    resolved = configuration.load(config, overrides or [])
    if out:
        make_output_dir(out)
    with Console() as console:
        result = command.bench_loader(raw, prepared, resolved, clips=clips, repeats=repeats, console=console)
    if out:
        output.save(result, out)
    _print(result.to_json(), as_json, lambda _: output.show(result))
    result.check()


@app.command()
def bench_kernels(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OPERATION]...", help="contrast, symmetric, edit-distance, augment; none: all of them."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Measurements of each way.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option(help="Time torch.compile too, which takes long to begin.")] = True,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Begin nothing after so many; what decides most comes first.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for bench_kernels.json and bench_kernels.png, written after each problem."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time the kernels beside how others compute the same, and tell what they take of each kind of GPU."""
    from cacl.benchmarks.harness.output import make_output_dir
    from cacl.benchmarks.kernels import command, output
    from cacl.reporting.console import Console

    if out:
        make_output_dir(out)
    with Console() as console:
        result = command.bench_kernels(
            operations or [],
            repeats=repeats,
            device=device,
            console=console,
            compile=compile,
            seconds=math.inf if seconds is None else seconds,
            so_far=lambda result: output.save(result, out) if out else None,
        )
    if out:
        output.save(result, out)
    _print(result.to_json(), as_json, lambda _: output.show(result))
    result.check()


@data_app.command()
def scan(
    root: Annotated[
        str, typer.Argument(help="Folder of videos, list of them, or folder or address of a prepared set.")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Decode every video of a folder once, and say what is usable, what is not, and why."""
    from functools import partial

    from cacl import config as configuration
    from cacl.loaders.catalog.scan import scan as scan_folder
    from cacl.reporting.console import Console

    config = configuration.override(configuration.from_dict({"data": {"root": root}}), overrides or [])
    with Console() as report:
        catalog = scan_folder(config.data, min_frames=config.clip.frames, progress=partial(report.progress, "scanning"))
    _print(catalog.to_json(), as_json, lambda _: _print_catalog(catalog))
    catalog.check(config.data.max_rejected)


@data_app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos, or a list of them.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to make, or to go on with.")],
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side; smaller videos stay as they are.")] = 128,
    gop: Annotated[int, typer.Option(help="Frames from one key frame to the next.")] = 16,
    crf: Annotated[int, typer.Option(help="Quality of x264: lower is better and larger.")] = 23,
    workers: Annotated[int, typer.Option(min=0, help="Videos at a time; 0: one per core.")] = 0,
    clips: Annotated[int, typer.Option("--verify", min=0, help="Compare so many clips with their sources.")] = 0,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make small videos of constant rate that a clip is quickly read from, and an index of them. Finished ones stay."""
    import signal
    from functools import partial

    from cacl import config as configuration
    from cacl.loaders.prepared.prepare import prepare as prepare_set
    from cacl.loaders.prepared.transcode import TranscodeSettings
    from cacl.loaders.prepared.verify import verify
    from cacl.reporting.console import Console

    config = configuration.override(configuration.from_dict({"data": {"root": str(source)}}), overrides or [])
    settings = TranscodeSettings(short_side=short_side, gop=gop, crf=crf)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the same command goes on
    with Console() as report:
        preparing, verifying = partial(report.progress, "preparing"), partial(report.progress, "verifying")
        summary = prepare_set(config.data, target, settings, workers=workers, progress=preparing)
        verified = verify(summary, clips, progress=verifying) if clips else None
    result = summary.to_json() | {"verified": verified and verified._asdict()}
    _print(result, as_json, lambda _: _print_summary(summary, verified))
    summary.check(config.data.max_rejected)


@data_app.command()
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

    with Console() as report:
        path = synthesise(
            root,
            videos_per_pair=(train_videos, test_videos, val_videos) if val_videos else (train_videos, test_videos),
            seed=seed,
            progress=lambda done, total: report.progress("making videos", done, total),
        )
    _print({"labels": str(path)}, as_json, lambda result: print(result["labels"]))


@eval_app.command()
def retrieval(
    checkpoint: Annotated[Path, typer.Argument(help="Run folder, checkpoint, or encoders.safetensors.")],
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Column of the data set's lists to judge by; may be repeated.")
    ] = None,
    queries: Annotated[
        Literal["test", "val"], typer.Option(help="Split whose videos are the queries; choose settings on val.")
    ] = "test",
    overrides: Overrides = None,
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
    folder = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "features"
    tables = evaluate_retrieval(weights, config, label or ["label"], folder, queries)
    _print([table.to_json() for table in tables], as_json, lambda _: _print_tables(tables))


def _print(result: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """Results go to stdout, for people or for programs; of several processes the first one prints."""
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        if as_json:
            print(json.dumps(result, indent=2))
        else:
            show(result)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `cacl ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_catalog(catalog: Catalog) -> None:
    from collections import Counter
    from statistics import median

    videos = catalog.videos
    print(f"{catalog.root}: layout {catalog.layout}")
    print(f"{len(videos)} usable videos, {sum(v.frames for v in videos)} frames")
    if videos:
        lengths = [v.frames for v in videos]
        print(f"frames    {min(lengths)} to {max(lengths)}, median {median(lengths):g}")
        for name, values in {
            "codecs": (v.codec for v in videos),
            "sizes": (f"{v.width} x {v.height}" for v in videos),
            "labels": (v.label or "none" for v in videos),
            "splits": (v.split or "none" for v in videos),
        }.items():
            print(f"{name:9} {_summary(Counter(values))}")
        miscounted = [v for v in videos if v.declared_frames not in (0, v.frames)]
        if miscounted:
            first = miscounted[0]
            print(
                f"{len(miscounted)} headers miscount their frames; what decodes is used "
                f"({first.path}: {first.declared_frames} declared, {first.frames} decode)"
            )
    _print_left_out(catalog)


def _print_left_out(catalog: Catalog) -> None:
    for note in catalog.notes:
        print(f"note      {note}")
    for path in catalog.missing:
        print(f"missing   {path}: listed, but not there")
    for path, reason in catalog.rejected:
        print(f"rejected  {path}: {reason}")
    if catalog.rejected:
        print(f"{len(catalog.rejected)} of {len(catalog.videos) + len(catalog.rejected)} files rejected")


def _print_summary(summary: PrepareSummary, verified: VerifyResult | None) -> None:
    count = len(summary.done)
    print(f"{summary.target}: {count} videos of {summary.root} (layout {summary.catalog.layout})")
    print(f"{summary.copied} copied, {count - summary.copied} encoded; {summary.kept} of them by an earlier run")
    print(f"{summary.source_bytes / 1e6:.1f} MB became {summary.prepared_bytes / 1e6:.1f} MB")
    _print_left_out(summary.catalog)
    if verified:
        line = f"{verified.clips} clips verified"
        if verified.lowest_psnr_db is not None:
            line += f": PSNR at least {verified.lowest_psnr_db:.1f} dB, median {verified.median_psnr_db:.1f} dB"
        print(line)


def _summary(counts: dict[str, int], most: int = 8) -> str:
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    rest = len(counts) - len(shown)
    return ", ".join(f"{name} ({count})" for name, count in shown) + (f", and {rest} more" if rest else "")


def _print_tables(tables: Sequence[RetrievalTable]) -> None:
    from rich.console import Console
    from rich.table import Table

    from cacl.evaluation.retrieval import SPLIT_NAMES, TOP_K

    for table in tables:
        shown = Table(
            title=f"retrieval by {table.label}: {table.num_queries} {SPLIT_NAMES[table.query_split]} videos query "
            f"{table.num_gallery} training videos of {table.num_classes} classes"
        )
        shown.add_column("feature")
        for k in TOP_K:
            shown.add_column(f"R@{k}", justify="right")
        for name, recalls in table.recalls.items():
            shown.add_row(name, *(f"{100 * recall:.1f}" for recall in recalls))
        Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 100).print(shown)


if __name__ == "__main__":
    main()
