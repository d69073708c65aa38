"""The commands that keep a project running: up, gc.

mammoflow up --help
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import one_sentence, say
from flows.processes.reach import require_prefect
from flows.tracking import preflight

app = typer.Typer()


@app.command()
def up(
    workers: Annotated[
        list[str] | None,
        typer.Option(help="Start only this pool's worker, for the server at PREFECT_API_URL."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Start no worker for this pool: another machine has one."),
    ] = None,
) -> None:
    """Start Prefect, MLflow and a worker for each pool, until Ctrl-C."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        preflight.check_disk(Path.cwd(), 0)
        from flows.servers.wanted import check_wanted  # it imports no server

        check_wanted(Path.cwd(), workers or (), without or ())
    from flows.servers.up import up as start_all

    with one_sentence():
        start_all(Path.cwd(), workers or (), typer.echo, without or ())


@app.command()
def gc(
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it; without, it is only shown.")
    ] = False,
    days: Annotated[float, typer.Option(min=0, help="Nothing younger is removed.")] = 30.0,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also on DVC's default remote, which others share.")
    ] = False,
) -> None:
    """Show what is no longer needed, and remove it: old runs, superseded outs, leftovers.

    What the audit of a registered version needs is kept, and so is what a branch, a tag or the
    working tree refers to. Exits with 1 if not all of it could be removed, with 2 if it cannot
    begin.
    """
    root = Path.cwd()
    with one_sentence(status=2):
        preflight.check_clone(root)
        preflight.check_registry()
        if remote:
            preflight.check_remote(root)
        require_prefect()
    from flows.pruning.policy import PruningPolicy
    from flows.pruning.prune import exclude_others, find_waste
    from flows.pruning.prune import remove as remove_all

    with ExitStack() as stack:
        with one_sentence(status=2):
            stack.enter_context(exclude_others(root))
        with one_sentence():
            found = find_waste(root, PruningPolicy(days, remote))
            _show_waste(found)
            if yes:
                remove_all(found, say)
    if not yes and any(waste.count for waste in found.wastes):
        typer.echo("Nothing was changed; `mammoflow gc --yes` removes it.")


def _show_waste(found: Any) -> None:
    table = Table(title="No longer needed", title_justify="left")
    table.add_column("what")
    table.add_column("how many", justify="right")
    table.add_column("MB", justify="right")
    for waste in found.wastes:
        if waste.count:
            size = "" if waste.size is None else f"{waste.size / 1e6:.1f}"
            table.add_row(Text(waste.what), str(waste.count), size)
    if table.row_count:
        Console().print(table)
    else:
        typer.echo("Everything is still needed.")
    for note in found.notes:
        say(note)
