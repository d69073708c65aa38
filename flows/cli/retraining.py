"""The command that retrains.

mammoflow retrain --help
"""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_keys, one_sentence, remove_traceback, require_result
from flows.cli.promotion import show_promotion
from flows.documents.passages import read_passages
from flows.processes.reach import require_prefect, require_shared_prefect
from flows.tracking import preflight

app = typer.Typer()


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
        preflight.check_disk(root, 0)
        preflight.check_registry(begin=True)
        preflight.check_pools(root, pool or ())
        preflight.check_data(root)
        read_passages(root)
        preflight.check_tags(root)
        if pool:
            require_shared_prefect()  # before the next line imports DVC and Prefect for seconds
            from flows.remote.remote_stage import check_workers

            check_workers(pool)
        else:
            require_prefect()
        check_keys(root, "builder", "approver")
    with _start_temporary_server():
        from flows.retraining.flow import Summary
        from flows.retraining.flow import retrain as retrain_flow

    logging.getLogger("prefect.task_runs").addFilter(remove_traceback)
    state = retrain_flow(force=force, pools=tuple(pool or ()), return_state=True)
    summary = require_result(state)
    assert isinstance(summary, Summary)
    _show_summary(summary)


@contextmanager
def _start_temporary_server() -> Iterator[None]:
    """Start Prefect's temporary server, if one is needed, while a block imports other modules.

    The server is a process of its own and takes seconds. Prefect itself is imported first: if two
    threads import the same modules, one of them may find them incomplete.
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


def _show_summary(summary: Any) -> None:
    """Print what a retrain did, and where to see more."""
    from flows.tracking.names import MODEL, name_tag

    console = Console()
    if not summary.registered:
        console.print(
            f"Nothing changed since {MODEL} version {summary.version}: no stage ran, nothing was "
            f"registered."
        )
        _show_publications(console, summary)
        if summary.gate is not None:
            show_promotion(summary.gate)
        return
    console.print(_make_stages_table(summary.outcomes))
    console.print(_make_metrics_table(summary.metrics))
    if summary.gate is not None:
        show_promotion(summary.gate)
    console.print(f"{MODEL} version {summary.version}, alias {summary.alias}", style="bold")
    _show_publications(console, summary)
    console.print(f"git tag  {name_tag(summary.version)}")
    if summary.signed:
        console.print(f"evidence signed: mammoflow verify {summary.version}")
    else:
        console.print("evidence unsigned: there is no key (docs/evidence.md)")
    console.print("report   outputs/report/index.html")
    mlflow = os.environ["MLFLOW_TRACKING_URI"]
    if mlflow.startswith("sqlite:"):
        mlflow = f"mlflow ui --backend-store-uri {mlflow} --artifacts-destination mlruns/artifacts"
    console.print(f"MLflow   {mlflow}")
    server = os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    console.print(f"Prefect  {server or 'PREFECT_HOME=.prefect prefect server start'}")


def _show_publications(console: Console, summary: Any) -> None:
    from flows.publishing.publish import describe_publication

    for found in summary.publications:
        # As text: an address may look like rich's markup.
        console.print(Text(describe_publication(found), style="" if found.complete else "yellow"))


def _make_stages_table(outcomes: Sequence[Any]) -> Table:
    """What happened to each stage."""
    table = Table(title="Stages", title_justify="left")
    table.add_column("stage")
    table.add_column("what happened")
    words = {"ran": "ran", "cached": "restored from the cache", "unchanged": "up to date already"}
    for outcome in outcomes:
        table.add_row(outcome.stage, words[outcome.fate])
    return table


def _make_metrics_table(metrics: dict[str, Any]) -> Table:
    """The first group of metrics with intervals; the report has all of them."""
    found = list(_add_intervals(metrics, ()))
    group = found[0][0][:-1] if found else ()
    table = Table(title=", ".join(group), title_justify="left")
    for name in ("metric", "value", "interval"):
        table.add_column(name)
    for path, value, low, high in found:
        if path[:-1] == group:
            table.add_row(path[-1].replace("_", " "), f"{value:.3f}", f"{low:.3f} to {high:.3f}")
    return table


def _add_intervals(
    tree: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], float, float, float]]:
    if {"value", "low", "high"} <= tree.keys():
        if None not in (tree["value"], tree["low"], tree["high"]):
            yield path, tree["value"], tree["low"], tree["high"]
        return
    for key, branch in tree.items():
        if isinstance(branch, dict):
            yield from _add_intervals(branch, (*path, key))
