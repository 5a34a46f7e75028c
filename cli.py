"""The command line, `cacl --help`: the commands of `cacl.commands` under their names, and the entry point."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cacl import __version__
from cacl.commands import bench, configuration, data, environment, evaluate
from cacl.commands.ablate import ablate
from cacl.commands.export import export
from cacl.commands.finetune import finetune
from cacl.commands.profile import profile
from cacl.commands.search import embed, search
from cacl.commands.train import train
from cacl.errors import CaclError

app = typer.Typer(
    help="Train video encoders without labels, straight from video files.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(finetune)
app.command()(ablate)
app.command()(profile)
app.command()(embed)
app.command()(search)
app.command()(export)
app.command()(configuration.recipes)
app.command()(configuration.config)
app.command()(bench.bench_loader)
app.command()(bench.bench_kernels)
app.command()(bench.bench_step)
app.add_typer(data.app, name="data")
app.add_typer(evaluate.app, name="eval")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    """Print the version, if that is asked for."""
    if show:
        print(f"cacl {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command that the arguments name. Errors that a user can mend are one line on stderr and an exit code."""
    environment.accept_any_file_name()
    environment.let_waiting_threads_sleep()
    environment.keep_freed_memory()
    try:
        app()
    except CaclError as error:
        print(f"cacl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == 130:  # Typer turns Ctrl-C into this without a word.
            print("cacl: interrupted", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
