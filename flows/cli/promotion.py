"""The commands about who is champion: promote, rollback, aliases, looks.

mammoflow promote --help
"""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_keys, one_sentence, remove_traceback, require_result, say
from flows.processes.checked import escape_control_characters
from flows.processes.reach import require_prefect
from flows.tracking import preflight
from mammo.assurance.plan import PLAN_FILE, load_plan

app = typer.Typer()


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@challenger.")],
    reason: Annotated[
        str | None, typer.Option(help="Why, whatever the gate says; kept with your name.")
    ] = None,
) -> None:
    """Make a model version champion, if the gate finds it good enough or you give a reason.

    Exits with 0 if it is champion now or waits for approval, 1 if it was refused or not judged, 2
    if nothing could begin.
    """
    with one_sentence(status=2):
        preflight.check_project(Path.cwd())
        preflight.check_registry()
        preflight.check_version(version)
        check_keys(Path.cwd(), "builder", "approver")
        if reason is not None:
            check_keys(Path.cwd(), "approver")
        require_prefect()
    from flows.promotion.flow import Promotion, find_candidate
    from flows.promotion.flow import promote as promote_flow

    with one_sentence(status=2):  # before anybody is notified of a failure
        find_candidate(Path.cwd(), version, reason)

    logging.getLogger("prefect.task_runs").addFilter(remove_traceback)
    state = promote_flow(version, reason, return_state=True)
    found = require_result(state)
    assert isinstance(found, Promotion)
    show_promotion(found)
    raise typer.Exit(0 if found.outcome in ("promoted", "waits for approval") else 1)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
) -> None:
    """Make the previous champion champion again. Exits with 2 if there is none, or no reason."""
    with one_sentence(status=2):
        preflight.check_project(Path.cwd())
        preflight.check_registry()
        from flows.tracking import aliases as registered

        registered.check_reason(reason)
        registered.identify_person(Path.cwd())
        check_keys(Path.cwd(), "approver")
        registered.find_previous()
    from flows.promotion.flow import roll_back

    with one_sentence():
        before, now, unsigned = roll_back(Path.cwd(), reason)
    typer.echo(f"version {now} is champion again, in place of version {before}")
    if unsigned is not None:
        say(f"warning: {unsigned}", err=True)


@app.command()
def aliases() -> None:
    """List every move of champion, challenger and previous: when, what, who and why."""
    with one_sentence(status=2):
        preflight.check_registry()
    from flows.tracking import aliases as registered
    from flows.tracking.names import MODEL
    from flows.tracking.registry import open_store

    with one_sentence():
        open_store(Path.cwd())
        moves, now = registered.read_history(), registered.read_current()
    table = Table(title=f"Aliases of {MODEL}", title_justify="left")
    for name in ("when (UTC)", "move", "who", "why"):
        table.add_column(name, overflow="fold")  # a record is never cut short
    for move in moves:
        way = _describe(move)
        when = move.date[:16].replace("T", " ")
        # As text: what the registry holds may look like rich's markup.
        cells = (when, f"{move.alias} {way}", move.who, move.why)
        table.add_row(*(Text(escape_control_characters(cell)) for cell in cells))
    console = Console()
    console.print(table)
    for alias, version in sorted(now.items()):
        line = escape_control_characters(f"{alias} is version {version}")
        console.print(line, highlight=False, markup=False)
    for sentence in registered.find_unrecorded(moves, now):
        line = escape_control_characters(f"warning: {sentence}")
        console.print(line, style="bold", highlight=False, markup=False)


@app.command()
def looks() -> None:
    """List every look at the test women: which set, which model, when, and the error it spent."""
    with one_sentence(status=2):
        preflight.check_project(Path.cwd())
        preflight.check_registry()
        plan = load_plan(Path.cwd() / PLAN_FILE).looks
    from flows.promotion.budget import list_looks
    from flows.tracking.names import MODEL

    with one_sentence():
        found = list_looks(Path.cwd())
    table = Table(title=f"Looks at the test women of {MODEL}", title_justify="left")
    for name in ("set", "look", "when (UTC)", "women", "test women", "model", "error"):
        table.add_column(name)
    for look in found:
        when = escape_control_characters(look.date[:16].replace("T", " "))
        numbers = (str(look.set), str(look.number), when, str(look.women))
        digests = (
            escape_control_characters(look.test_women[:12]),
            escape_control_characters(look.model[:12]),
        )
        table.add_row(*numbers, *digests, f"{look.error:.4g}")
    console = Console()
    console.print(table)
    own = [look for look in found if look.set == max(look.set for look in found)]
    spent = sum(look.error for look in own)
    console.print(
        f"{len(own)} of {plan.number} looks at this set are taken, and {spent:.3g} of the error of "
        f"{plan.error_of_set:.3g} is spent",
        highlight=False,
    )


def _describe(move: Any) -> str:
    """From which version an alias went to which."""
    if move.kind == "taken away":
        return f"{move.version} -> none"
    return f"{move.version}" if move.before is None else f"{move.before} -> {move.version}"


def show_promotion(found: Any) -> None:
    """Print what the gate did with a version: the conditions as a table, then the outcome."""
    from flows.tracking.names import MODEL

    console = Console()
    decision = found.verdict.decision if found.verdict is not None else None
    if decision is not None:
        against = f"the champion, version {found.champion}" if found.champion else "no champion"
        title = f"Gate: version {found.version} against {against}"
        table = Table(title=title, title_justify="left")
        for name in ("condition", "champion", "challenger", "bound", "limit", ""):
            table.add_column(name)
        for reason in decision.reasons:
            table.add_row(
                reason.name,
                "" if reason.champion is None else f"{reason.champion:.3f}",
                f"{reason.challenger:.3f}",
                "" if reason.bound is None else f"{reason.bound:+.3f}",
                f"{reason.limit:+.3f}",
                "passed" if reason.passed else "failed",
            )
        console.print(table)
    console.print(f"{MODEL} version {found.version}: {found.outcome}", style="bold")
    console.print(escape_control_characters(found.sentence), highlight=False, markup=False)
    if found.outcome in ("waits for approval", "outside the plan", "no look left", "not judged"):
        console.print(f'approve  mammoflow promote {found.version} --reason "..."', markup=False)
