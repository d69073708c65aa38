"""The commands about settings: params check, params use.

mammoflow params --help
"""

from pathlib import Path
from typing import Annotated

import typer

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import one_sentence
from mammo.base.atomic_files import write_text
from mammo.base.settings import load_params

app = typer.Typer(no_args_is_help=True, help="Check settings, or put a recipe into use.")


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="params.yaml or recipes.")],
) -> None:
    """Check settings against their types; an unknown or mistyped key is an error."""
    with one_sentence():
        for file in files:
            load_params(file)
            typer.echo(f"{file}: good")


@app.command("use")
def use(
    recipe: Annotated[Path, typer.Argument(help="For instance recipes/rsna.yaml.")],
) -> None:
    """Check a recipe and make it params.yaml."""
    with one_sentence():
        load_params(recipe)
        write_text(Path("params.yaml"), recipe.read_text())
        typer.echo(f"params.yaml is now {recipe}")
