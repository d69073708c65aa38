"""The commands about what a version was made from: audit, audits, publish, fingerprint.

mammoflow audit --help
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_keys, check_writable, one_sentence, say, unwind_at_sigterm
from flows.processes.checked import escape_control_characters
from flows.tracking import preflight
from mammo.base.atomic_files import write_text
from mammo.base.errors import UserError
from mammo.base.settings import load_params

app = typer.Typer()


@app.command()
def audit(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
    quick: Annotated[
        bool, typer.Option(help="Check the records only: nothing is run again.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="A folder for index.html and audit.json, besides MLflow.")
    ] = None,
    trust: Annotated[
        list[str] | None, typer.Option(help="Id of a key that you trust; all of keys/ without it.")
    ] = None,
) -> None:
    """Reproduce a registered model version and prove it, or say what is wrong with it.

    Says first which standard applies: the same bytes where this machine computes as the one that
    made the version, else a model that does the same for the test women.

    Exits with 0 if it was reproduced, 1 if not or if it is unsound, 2 if it cannot be judged or the
    test women are too few to tell.
    """
    with one_sentence(status=2):
        root = Path.cwd()
        settings = preflight.check_project(root)
        if report is not None:
            check_writable(report)
        preflight.check_registry()
        number = preflight.check_version(version)
        check_keys(root, "auditor")
        preflight.check_tag(root, number)
        preflight.check_objects(root, number)
    from flows.audit.audit import audit as audit_version
    from flows.audit.record import EXIT_STATUS

    # An audit that is terminated removes its worktree and ends its child processes.
    unwind_at_sigterm()
    with one_sentence(status=2):
        found = audit_version(root, version, settings, quick, say, trust or ())
    for finding in found.findings:
        say(f"{finding.step}, {finding.kind}: {finding.sentence}")
    say(f"\n{found.verdict.upper()}\n{found.sentence}")
    _keep_report(root, found)
    if report is not None:
        _write_report(found, report)
    raise typer.Exit(EXIT_STATUS[found.verdict])


def _keep_report(root: Path, found: Any) -> None:
    """Log the report of an audit to MLflow; the verdict stands, even if MLflow does not take it."""
    from flows.audit.history import keep

    try:
        typer.echo(f"report: {keep(root, found)}/index.html of the MLflow run {found.run}")
    except UserError as error:
        say(f"error: {error}", err=True)


def _write_report(found: Any, folder: Path) -> None:
    """Write the report of an audit to a folder; the verdict stands, even if that fails."""
    from flows.audit.page import render

    try:
        write_text(folder / "index.html", render(found))
        write_text(folder / "audit.json", found.model_dump_json(indent=2) + "\n")
        typer.echo(f"report: {folder / 'index.html'}")
    except OSError as error:
        say(f"error: the report could not be written: {error}", err=True)


@app.command()
def audits(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
) -> None:
    """List the audits of a model version: when, by whom, where, how, and what came of it."""
    with one_sentence(status=2):
        preflight.check_registry()
        preflight.check_version(version)
    from flows.audit.history import list_audits
    from flows.tracking.find_version import find_version

    with one_sentence(status=2):
        found = find_version(version)
    with one_sentence():
        kept = list_audits(found)
    table = Table(title=f"Audits of version {found.version}", title_justify="left")
    for name in ("when (UTC)", "who", "where", "how", "verdict", "report"):
        table.add_column(name, overflow="fold")  # a record is never cut short
    for audit in kept:
        how = "quick" if audit.quick else f"full, {audit.standard or 'no standard'}"
        when = audit.date[:16].replace("T", " ")
        cells = (when, audit.who, audit.where, how, audit.verdict, audit.report)
        table.add_row(*(Text(escape_control_characters(cell)) for cell in cells))
    console = Console()
    console.print(table if kept else f"version {found.version} was never audited")
    if kept:
        shown = escape_control_characters(
            f"shown as its verdict: {found.tags.get('audit_verdict')}"
        )
        console.print(shown, highlight=False, markup=False)


@app.command()
def publish(
    versions: Annotated[list[int], typer.Argument(help="Numbers of versions.")],
) -> None:
    """Push what others need to audit versions: git tags, data, outs, and the signed evidence.

    It asks whether it is there. A retrain does so for the version that it registers. Exits with 1
    if something cannot be had, with 2 if it cannot begin.
    """
    with one_sentence(status=2):
        preflight.check_project(Path.cwd())
        preflight.check_registry()
        for version in versions:
            preflight.check_version(str(version))
        preflight.check_remote(Path.cwd())
    from flows.evidence.ledger import publish_ledger
    from flows.publishing.publish import choose_git_remote, describe_publication
    from flows.publishing.publish import publish as publish_version
    from flows.tracking.names import MODEL
    from flows.tracking.registry import find

    with one_sentence(status=2):
        preflight.check_git_remote(Path.cwd(), choose_git_remote(Path.cwd()))
        for version in versions:
            if find(version) is None:
                raise UserError(f"the registry has no {MODEL} version {version}")
    complete = True
    with one_sentence():
        for version in versions:
            found = publish_version(Path.cwd(), version, say)
            say(describe_publication(found))
            complete = complete and found.complete
        if fault := publish_ledger(Path.cwd()):
            say(fault)
            complete = False
    raise typer.Exit(0 if complete else 1)


@app.command()
def fingerprint() -> None:
    """Show this machine's arithmetic, as the stages compute: a hash for each family of kernels.

    On a machine with the same hashes a model comes out the same, bit for bit.
    """
    with one_sentence(status=2):
        preflight.check_folder(Path.cwd())
        load_params()  # says what is wrong with it better than a child that fails
    from flows.tracking.arithmetic import measure

    with one_sentence():
        found = measure(Path.cwd())
    table = Table(title="Arithmetic", title_justify="left")
    for name in ("family", "hash"):
        table.add_column(name)
    for family, digest in found.items():
        table.add_row(family, digest)
    Console().print(table)
