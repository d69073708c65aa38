"""The command that takes a version out of the project: export.

mammoflow export --help
"""

from pathlib import Path
from typing import Annotated

import typer

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_new, one_sentence, say
from flows.tracking import preflight

app = typer.Typer()


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    model: Annotated[str, typer.Option(help="3, @champion or another alias.")] = "@champion",
) -> None:
    """Write a version as an MLflow model that needs no torch: for ONNX Runtime, on a CPU."""
    with one_sentence(status=2):
        check_new(folder)
        preflight.check_disk(folder, 0)
        preflight.check_registry()
        preflight.check_version(model)
        from flows.tracking.find_version import find_version

        find_version(model)
    with one_sentence():
        from flows.serving.standalone import export_version

        apart = export_version(model, folder)
    say(f"{folder}: its answers differ from the registered version's by {apart:.1g} at most")
