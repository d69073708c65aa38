"""The commands about settings and plans: params check, params use.

mammoflow params --help
"""

from pathlib import Path
from typing import Annotated

import typer

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import one_sentence
from flows.tracking import preflight
from mammo.assurance.plan import PLAN_FILE, load_plan
from mammo.base.atomic_files import write_text
from mammo.base.errors import UserError
from mammo.base.settings import load_params

PLANS = "plans"
"""The folder beside the recipes with the plan of each."""

app = typer.Typer(no_args_is_help=True, help="Check settings, or put a recipe into use.")


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="params.yaml, plan.yaml or recipes.")],
) -> None:
    """Check settings against their types; an unknown or mistyped key is an error.

    Exits with 1 if something must be mended, with 2 if a file is not there.
    """
    with one_sentence(status=2):
        for file in files:
            if not file.is_file():
                raise UserError(f"{file}: there is no such file")
    with one_sentence():
        for file in files:
            (load_plan if _is_plan(file) else load_params)(file)
            typer.echo(f"{file}: good")


@app.command("use")
def use(
    recipe: Annotated[Path, typer.Argument(help="For instance recipes/rsna.yaml.")],
) -> None:
    """Check a recipe and make it params.yaml; a plan of its name in plans/ becomes plan.yaml."""
    plan = recipe.parent / PLANS / recipe.name
    with one_sentence(status=2):
        preflight.check_folder(Path.cwd())
        load_params(recipe)
        if plan.exists():
            load_plan(plan)
            write_text(Path(PLAN_FILE), plan.read_text())
            typer.echo(f"{PLAN_FILE} is now {plan}")
        write_text(Path("params.yaml"), recipe.read_text())
        typer.echo(f"params.yaml is now {recipe}")


def _is_plan(file: Path) -> bool:
    return file.name == PLAN_FILE or file.parent.name == PLANS
