"""The command line.

mammoflow --help
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli import promotion
from flows.cli.console import check_writable, one_sentence, result_of, without_traceback
from flows.processes.checked import ModelName, checked, printable
from flows.processes.reach import require_prefect
from flows.tracking import preflight
from mammo.base.atomic_files import write_text
from mammo.base.errors import UserError
from mammo.base.settings import load_params

EXAMPLES = 5
"""Places that a finding names; the others are counted."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="Make or bring in data sets, in our data/ layout.")
params = typer.Typer(no_args_is_help=True, help="Check settings, or put a recipe into use.")
app.add_typer(promotion.app)
app.add_typer(data, name="data")
app.add_typer(params, name="params")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mammoflow {metadata.version('mammoflow')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
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
            os.environ["MAMMOFLOW_MODEL"] = checked(ModelName, model, "the model's name")


@app.command()
def retrain(
    force: Annotated[
        bool, typer.Option(help="Go through the stages even if nothing has changed.")
    ] = False,
    pool: Annotated[
        list[str] | None, typer.Option(help="Run the stages of this pool through its worker.")
    ] = None,
) -> None:
    """Bring the pipeline up to date and register the model that comes of it.

    Exits with 1 if that fails, with 2 if it cannot begin.
    """
    with one_sentence(status=2):
        root = Path.cwd()
        preflight.check_project(root)
        preflight.check_committed(root)
        preflight.check_room(root, 0)
        preflight.check_registry(begin=True)
        require_prefect()
    with _temporary_server():
        from flows.retraining.flow import Summary
        from flows.retraining.flow import retrain as retrain_flow

    logging.getLogger("prefect.task_runs").addFilter(without_traceback)
    state = retrain_flow(force=force, pools=tuple(pool or ()), return_state=True)
    summary = result_of(state)
    assert isinstance(summary, Summary)
    _show(summary)


@contextmanager
def _temporary_server() -> Iterator[None]:
    """Let Prefect's temporary server, if there will be one, start while other things are imported.

    It takes seconds, in a process of its own. Prefect itself is imported before, since two threads
    that import the same modules may meet them half done.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value() is not None:
        yield
        return
    import prefect.flows
    import prefect.server.api.server  # noqa: F401
    from prefect.client.orchestration import get_client

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(get_client, sync_client=True)
        yield
        started.result()


@app.command()
def audit(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
    quick: Annotated[
        bool, typer.Option(help="Check the records only: nothing is run again.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="A folder for index.html and audit.json, besides MLflow.")
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
    from flows.audit.audit import audit as audit_version
    from flows.audit.history import keep
    from flows.audit.page import render
    from flows.audit.record import EXIT_STATUS

    # An audit that is told to stop takes its worktree and its children along.
    _terminate_like_ctrl_c()
    with one_sentence(status=2):
        found = audit_version(root, version, settings, quick, _say)
    for finding in found.findings:
        typer.echo(printable(f"{finding.step}, {finding.kind}: {finding.sentence}"))
    typer.echo(printable(f"\n{found.verdict.upper()}\n{found.sentence}"))
    # The verdict stands, whatever becomes of the report.
    try:
        typer.echo(f"report: {keep(root, found)}/index.html of the MLflow run {found.run}")
    except UserError as error:
        typer.echo(printable(f"error: {error}"), err=True)
    try:
        if report is not None:
            write_text(report / "index.html", render(found))
            write_text(report / "audit.json", found.model_dump_json(indent=2) + "\n")
            typer.echo(f"report: {report / 'index.html'}")
    except OSError as error:
        typer.echo(printable(f"error: the report could not be written: {error}"), err=True)
    raise typer.Exit(EXIT_STATUS[found.verdict])


@app.command()
def audits(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
) -> None:
    """List the audits of a model version: when, by whom, where, how, and what came of it."""
    with one_sentence(status=2):
        preflight.check_registry()
    from flows.audit.history import history
    from flows.tracking.find_version import find_version

    with one_sentence():
        found = find_version(version)
        kept = history(found)
    table = Table(title=f"Audits of version {found.version}", title_justify="left")
    for name in ("when (UTC)", "who", "where", "how", "verdict", "report"):
        table.add_column(name, overflow="fold")  # a record is never cut short
    for audit in kept:
        how = "quick" if audit.quick else f"full, {audit.standard or 'no standard'}"
        when = audit.date[:16].replace("T", " ")
        cells = (when, audit.who, audit.where, how, audit.verdict, audit.report)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console = Console()
    console.print(table if kept else f"version {found.version} was never audited")
    if kept:
        shown = printable(f"shown as its verdict: {found.tags.get('audit_verdict')}")
        console.print(shown, highlight=False, markup=False)


def _say(line: str) -> None:
    typer.echo(printable(line))


@app.command()
def publish(
    versions: Annotated[list[int], typer.Argument(help="Numbers of versions.")],
) -> None:
    """Push what others need to audit versions: git tags, data and outs. Asks whether it is there.

    A retrain does so for the version that it registers. Exits with 1 if one cannot be had.
    """
    with one_sentence(status=2):
        preflight.check_project(Path.cwd())
        preflight.check_registry()
    from flows.publishing.publish import in_words
    from flows.publishing.publish import publish as publish_version
    from flows.tracking.registry import MODEL, find

    complete = True
    with one_sentence():
        for version in versions:
            if find(version) is None:
                raise UserError(f"the registry has no {MODEL} version {version}")
            found = publish_version(Path.cwd(), version, _say)
            typer.echo(printable(in_words(found)))
            complete = complete and found.complete
    raise typer.Exit(0 if complete else 1)


@app.command()
def fingerprint() -> None:
    """Show this machine's arithmetic, as the stages compute: a hash for each family of kernels.

    On a machine with the same hashes a model comes out the same, bit for bit.
    """
    from flows.tracking.arithmetic import measure

    with one_sentence():
        load_params()  # says what is wrong with it better than a child that fails
        found = measure(Path.cwd())
    table = Table(title="Arithmetic", title_justify="left")
    for name in ("family", "hash"):
        table.add_column(name)
    for family, digest in found.items():
        table.add_row(family, digest)
    Console().print(table)


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
    from flows.servers.up import up as start_all

    with one_sentence():
        start_all(Path.cwd(), workers or (), typer.echo, without or ())


@app.command()
def gc(
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it; without, it is only shown.")
    ] = False,
    days: Annotated[float, typer.Option(min=0, help="Younger than this nothing goes.")] = 30.0,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also on DVC's default remote, which others share.")
    ] = False,
) -> None:
    """Show what is no longer needed, and remove it: old runs, superseded outs, leavings.

    What a registered version needs to be audited stays, and what a branch, a tag or the working
    tree names.
    """
    with one_sentence():
        from flows.pruning.policy import Policy
        from flows.pruning.prune import alone, look
        from flows.pruning.prune import remove as remove_all

        root = Path.cwd()
        with alone(root):
            found = look(root, Policy(days, remote))
            _show_waste(found)
            if yes:
                remove_all(found, _say)
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
        typer.echo(printable(note))


def _terminate_like_ctrl_c() -> None:
    """Let SIGTERM unwind the stack, so that what was begun is undone."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _show(summary: Any) -> None:
    """Print what a retrain did, and where to look."""
    from flows.tracking.register import git_tag
    from flows.tracking.registry import MODEL

    console = Console()
    if not summary.registered:
        console.print(
            f"Nothing changed since {MODEL} version {summary.version}: no stage ran, nothing was "
            f"registered."
        )
        _show_publications(console, summary)
        if summary.gate is not None:
            promotion.show_promotion(summary.gate)
        return
    fates = Table(title="Stages", title_justify="left")
    fates.add_column("stage")
    fates.add_column("what happened")
    words = {"ran": "ran", "cached": "restored from the cache", "unchanged": "up to date already"}
    for outcome in summary.outcomes:
        fates.add_row(outcome.stage, words[outcome.fate])
    console.print(fates)
    console.print(_metrics_table(summary.metrics))
    if summary.gate is not None:
        promotion.show_promotion(summary.gate)
    console.print(f"{MODEL} version {summary.version}, alias {summary.alias}", style="bold")
    _show_publications(console, summary)
    console.print(f"git tag  {git_tag(summary.version)}")
    console.print("report   outputs/report/index.html")
    mlflow = os.environ["MLFLOW_TRACKING_URI"]
    if mlflow.startswith("sqlite:"):
        mlflow = f"mlflow ui --backend-store-uri {mlflow} --artifacts-destination mlruns/artifacts"
    console.print(f"MLflow   {mlflow}")
    server = os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    console.print(f"Prefect  {server or 'PREFECT_HOME=.prefect prefect server start'}")


def _show_publications(console: Console, summary: Any) -> None:
    from flows.publishing.publish import in_words

    for found in summary.publications:
        # As text: an address may look like rich's markup.
        console.print(Text(in_words(found), style="" if found.complete else "yellow"))


def _metrics_table(metrics: dict[str, Any]) -> Table:
    """The first group of metrics that come with an interval; the report has them all."""
    found = list(_with_intervals(metrics, ()))
    group = found[0][0][:-1] if found else ()
    table = Table(title=", ".join(group), title_justify="left")
    for name in ("metric", "value", "interval"):
        table.add_column(name)
    for path, value, low, high in found:
        if path[:-1] == group:
            table.add_row(path[-1].replace("_", " "), f"{value:.3f}", f"{low:.3f} to {high:.3f}")
    return table


def _with_intervals(
    tree: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], float, float, float]]:
    if {"value", "low", "high"} <= tree.keys():
        if None not in (tree["value"], tree["low"], tree["high"]):
            yield path, tree["value"], tree["low"], tree["high"]
        return
    for key, branch in tree.items():
        if isinstance(branch, dict):
            yield from _with_intervals(branch, (*path, key))


@data.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="In our layout, as data/ is.")],
) -> None:
    """Look at every table and file as training would, before `dvc add`; changes nothing.

    Exits with 1 if something must be mended.
    """
    from mammo.base.processor import available_cores
    from mammo.datasets.check import check_data

    with one_sentence():
        checked = check_data(folder, load_params().preprocess, available_cores())
    console = Console()
    for mend, title in ((True, "To be mended"), (False, "To be known")):
        findings = [finding for finding in checked.findings if finding.mend is mend]
        if findings:
            console.print(_findings_table(title, findings))
    console.print(
        f"{checked.read} of {checked.rows} images of {checked.patients} women can be read; "
        + ("everything is in order." if checked.in_order else "some things must be mended."),
        style="bold",
    )
    raise typer.Exit(0 if checked.in_order else 1)


def _findings_table(title: str, findings: list[Any]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("what", overflow="fold")
    table.add_column("times", justify="right")
    table.add_column("where", overflow="fold")
    for finding in findings:
        shown = ", ".join(finding.where[:EXAMPLES])
        more = ", ..." if len(finding.where) > EXAMPLES else ""
        # As text: a file's name may look like rich's markup.
        table.add_row(Text(finding.what), str(len(finding.where)), Text(shown + more))
    return table


@data.command("phantom")
def data_phantom(
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
) -> None:
    """Write the sample: deterministic digital phantoms as DICOM."""
    from mammo.datasets.phantom.draw import write_phantoms

    with one_sentence():
        write_phantoms(folder)


@data.command("mini-mias")
def data_mini_mias(
    source: Annotated[Path, typer.Argument(help="The folder with labels.csv and images/.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
) -> None:
    """Turn the mini-MIAS films (research use only) into our layout."""
    from mammo.datasets.mini_mias import convert_mini_mias

    with one_sentence():
        convert_mini_mias(source, folder)


@data.command("add")
def data_add(
    folder: Annotated[Path, typer.Argument(help="New exams, in the layout of data/.")],
) -> None:
    """Merge new exams into data/, all or none of them, and version it with DVC."""
    from flows.pipeline.add_data import add_data

    _terminate_like_ctrl_c()
    with one_sentence():
        count = add_data(Path.cwd(), folder, typer.echo)
    typer.echo(f"{count} images added. To keep them, and to have them retrained:")
    typer.echo(f'  git commit -m "data: {count} images of {folder.name}" data.dvc')
    typer.echo("  dvc push data.dvc        # if there is a remote")
    typer.echo("  git push                 # mammoflow up watches the branch; or mammoflow retrain")


@params.command("check")
def params_check(
    files: Annotated[list[Path], typer.Argument(help="params.yaml or recipes.")],
) -> None:
    """Check settings against their types; an unknown or mistyped key is an error."""
    with one_sentence():
        for file in files:
            load_params(file)
            typer.echo(f"{file}: good")


@params.command("use")
def params_use(
    recipe: Annotated[Path, typer.Argument(help="For instance recipes/rsna.yaml.")],
) -> None:
    """Check a recipe and make it params.yaml."""
    with one_sentence():
        load_params(recipe)
        write_text(Path("params.yaml"), recipe.read_text())
        typer.echo(f"params.yaml is now {recipe}")


if __name__ == "__main__":
    app()
