"""`cacl train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacl.commands.options import AsJson, ConfigName, Imports, Overrides, TrainingReportFolder
from cacl.commands.output import print_message, print_result, report_on

if TYPE_CHECKING:
    from cacl.config import Config


def train(
    videos: Annotated[
        str | None,
        typer.Argument(help="Folder of videos, list of them, or folder or address of a prepared set: data.root."),
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Folder that the run is written into: run.")] = None,
    config: ConfigName = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in the run folder.")] = False,
    report: TrainingReportFolder = None,
    dry_run: Annotated[bool, typer.Option(help="Only print the resolved configuration.")] = False,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Train on videos; everything goes into the run folder.

    Without --config, settings are chosen that fit the videos and the machine.
    """
    arguments = {"data.root": videos, "run": run}
    settings, given = _read_settings(config, overrides or [], arguments, resume=resume)
    if dry_run:
        _print_settings(settings, given, as_json)
        return
    from cacl.training import trainer

    with report_on(report, settings.run) as on_log:
        summary = trainer.train(settings, resume=resume, given=given, on_log=on_log)
    print_result(summary, as_json, lambda: _print_summary(summary))


def _read_settings(
    name_or_file: str | None, overrides: Sequence[str], arguments: Mapping[str, str | None], *, resume: bool
) -> tuple[Config, frozenset[str] | None]:
    """Returns the configuration, and the keys that are given if the others are to be chosen."""
    from cacl.config import load, load_given

    if name_or_file is not None:
        return load(name_or_file, overrides, arguments), None
    settings, given = load_given(overrides, arguments)
    begun = Path(settings.run) / "config.toml"
    if not resume or not begun.is_file():
        return settings, given
    # The videos or the machine may be others by now, and a run goes on with the settings that it began with.
    print_message(f"{begun} has the settings of this run; none is chosen anew")
    return load(begun, overrides, arguments), None


def _print_settings(settings: Config, given: frozenset[str] | None, as_json: bool) -> None:
    from cacl.config import to_dict, to_toml

    if given is not None:
        from cacl import distributed
        from cacl.reporting.console import Console
        from cacl.training.choose_config import choose_config

        with (
            distributed.process_group(settings.train.device) as device,
            Console(enabled=distributed.rank() == 0) as console,
        ):
            settings = choose_config(settings, given, device, console)
    print_result(to_dict(settings), as_json, lambda: print(to_toml(settings), end=""))


def _print_summary(summary: dict[str, Any]) -> None:
    print(f"{summary['run']}: {summary['steps_taken']} of {summary['steps']} steps in {summary['seconds']:.0f} s")
