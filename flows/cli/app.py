"""The command line: its options, and the commands of each module of this room.

mammoflow --help
"""

import os
from importlib import metadata
from typing import Annotated

import typer

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli import (
    auditing,
    data,
    evidence,
    exporting,
    listening,
    params,
    predicting,
    promotion,
    retraining,
    services,
)
from flows.cli.console import one_sentence
from flows.processes.checked import ModelName, validate

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
# In the order of the help.
for module in (
    retraining,
    auditing,
    evidence,
    services,
    promotion,
    predicting,
    listening,
    exporting,
):
    app.add_typer(module.app)
app.add_typer(data.app, name="data")
app.add_typer(params.app, name="params")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mammoflow {metadata.version('mammoflow')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001  (an eager option)
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say which it is."),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            envvar="MAMMOFLOW_MODEL",
            help="The registered model's name, where the usual one is another team's.",
        ),
    ] = None,
) -> None:
    """Retrain a mammography classifier, and prove how any version of it came to be."""
    if model is not None:
        with one_sentence(status=2):
            os.environ["MAMMOFLOW_MODEL"] = validate(ModelName, model, "the model's name")


if __name__ == "__main__":
    app()
