"""The stages of dvc.yaml as Prefect tasks, in the order of DVC's graph.

Right before the stage that scores the test women, its look is counted; without a look left, it does
not run.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows.pipeline.graph import Stage, StageOutcome, repro, skip_hints
from flows.pipeline.known_outs import PREDICTIONS_OUT
from flows.processes.follow import CommandError, stop_all
from flows.promotion import budget
from flows.promotion.budget import NoLookLeftError
from flows.remote.child_runs import cancel_children
from flows.remote.remote_stage import run_in_pool
from flows.snapshots.snapshot import capture
from flows.tracking import runs
from mammo.assurance.plan import Plan


class RefusedError(CommandError):
    """The snapshot itself is at fault: another retrain of it would end the same way."""


@task(cache_policy=NO_CACHE)  # DVC knows better what has to be done again
def bring_up_to_date(
    stage: Stage,
    root: Path,
    experiment: str,
    parent: str,
    elsewhere: bool = False,
    plan: Plan | None = None,
) -> StageOutcome:
    """Bring one stage up to date and log to MLflow what dvc.yaml declares for it.

    Args:
        stage: the stage; its dependencies must be up to date.
        root: the project.
        experiment: id of the experiment in MLflow.
        parent: id of the retrain's run.
        elsewhere: let a worker of the stage's pool run the stage, and not this process.
        plan: says what looks at the test women there may be; None if nobody counts them.

    Raises:
        NoLookLeftError: if the stage scores the test women, and the plan allows no further model.
    """
    logger = get_run_logger()
    if plan is not None and Path(PREDICTIONS_OUT) in stage.outs:
        budget.take_look(root, capture(root), plan, logger.info)
    run = runs.start_stage(experiment, parent, stage)
    say = skip_hints(logger.info)
    with runs.end_afterwards(run):
        if elsewhere:
            outcome = run_in_pool(stage, root, run, say)
        else:
            outcome = StageOutcome(stage.name, repro(stage, root, {"MLFLOW_RUN_ID": run}, say))
        runs.log_stage(root, stage, outcome, run, parent)
    return outcome


def run_pipeline(
    stages: list[Stage],
    root: Path,
    experiment: str,
    parent: str,
    pools: Sequence[str] = (),
    plan: Plan | None = None,
) -> list[StageOutcome]:
    """Run every stage as a Prefect task; stages that do not wait for each other run side by side.

    Args:
        stages: all of them, each after the stages that it waits for.
        root: the project.
        experiment: id of the experiment in MLflow.
        parent: id of the retrain's run.
        pools: stages of these pools run through a worker, the others in this process.
        plan: as `bring_up_to_date` takes it.

    Raises:
        RefusedError: if stages ended with an error of their own; it has their names and last lines.
            Or if no look is left at the test women.
        CommandError: the same, if a stage was killed or the disk was full.
    """
    futures: dict[str, PrefectFuture[StageOutcome]] = {}
    try:
        for stage in stages:
            configured = bring_up_to_date.with_options(
                name=stage.name,
                task_run_name=stage.name,
                retries=stage.meta.retries,
                retry_delay_seconds=stage.meta.retry_delay,
            )
            futures[stage.name] = configured.submit(
                stage,
                root,
                experiment,
                parent,
                stage.meta.pool in pools,
                plan,
                return_state=False,
                wait_for=[futures[name] for name in stage.upstream],
            )
        for future in futures.values():
            future.wait()
    except BaseException:
        # Cancelled or interrupted: the threads that wait for the stages do not notice.
        stop_all()
        cancel_children()
        raise
    return _collect_outcomes(list(futures.values()))


def _collect_outcomes(futures: Sequence[PrefectFuture[StageOutcome]]) -> list[StageOutcome]:
    """What became of each stage.

    Raises:
        RefusedError, CommandError: as `run_pipeline`.
    """
    failures = [
        future.state.result(raise_on_failure=False)
        for future in futures
        if future.state.is_failed() or future.state.is_crashed()
    ]
    if failures:
        all_own = all(
            isinstance(failure, NoLookLeftError) or _is_own_error(str(failure))
            for failure in failures
        )
        raise (RefusedError if all_own else CommandError)("\n".join(map(str, failures)))
    return [future.result() for future in futures]


def _is_own_error(failure: str) -> bool:
    """Whether a stage ended with an error of its own.

    Stages are pure, so it would end with the same error again. The exit status is in DVC's message:
    where a signal ended the stage, it is negative, or larger than 128 if a shell reports it.
    """
    found = re.findall(r"exited with (-?\d+)", failure)
    full = any(words in failure for words in ("the disk is full", "No space left on device"))
    return bool(found) and all(0 < int(status) <= 128 for status in found) and not full
