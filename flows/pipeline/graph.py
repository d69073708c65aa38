"""dvc.yaml read through DVC's own graph, and one stage of it brought up to date.

DVC says which stages exist and what each waits for, so this module names no stage.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.processes.checked import describe_faults
from flows.processes.follow import follow
from flows.processes.run_dvc import DVC, make_environment
from flows.processes.words import Say
from mammo.base.errors import UserError

_PRETRAINING = "pretraining/"  # of names by which `dvc status` calls stages and .dvc files


class Meta(BaseModel):
    """What dvc.yaml says under a stage's `meta`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: str = "cpu"  # the work pool that the stage wants
    retries: int = Field(default=0, ge=0)
    retry_delay: float = Field(default=10, ge=0)  # seconds
    time_limit: float = Field(default=86_400, gt=0)  # seconds


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml. Paths are relative to the project."""

    name: str
    upstream: tuple[str, ...]  # stages that must be done before
    meta: Meta
    params: tuple[str, ...]  # the keys of params.yaml that it depends on
    metrics: tuple[Path, ...]
    plots: tuple[Path, ...]
    pages: tuple[Path, ...]  # HTML files among the outs, made for people
    outs: tuple[Path, ...]  # all of them
    trains: bool  # writes weights, which differ on a machine that computes differently


Fate = Literal["ran", "cached", "unchanged"]


@dataclass(frozen=True)
class StageOutcome:
    """How a stage was brought up to date: it ran, was restored from the cache, or was unchanged."""

    stage: str
    fate: Fate
    # Of the machine whose worker ran it; None if it was not sent to a worker.
    arithmetic: Mapping[str, str] | None = None


def read_pipeline(root: Path) -> list[Stage]:
    """The stages of `root`/dvc.yaml, each after those that it depends on.

    Not those of pretraining/dvc.yaml: what they make is an input of this pipeline.

    Raises:
        UserError: if dvc.yaml cannot be read, or a stage's `meta` is not understood.
    """
    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            order = networkx.lexicographical_topological_sort(
                graph.reverse(), key=lambda stage: str(stage.addressing)
            )
            return [
                _read_stage(stage, graph.successors(stage), Path(repo.root_dir))
                for stage in order
                if _is_of_the_pipeline(stage)
            ]
    except DvcException as error:
        raise UserError(f"dvc.yaml: DVC cannot read the pipeline: {error}") from None


def require_pools(stages: Sequence[Stage], pools: Sequence[str]) -> None:
    """Make sure that a stage wants each of these pools.

    Raises:
        UserError: naming the pools that are wanted.
    """
    wanted = sorted({stage.meta.pool for stage in stages})
    for pool in pools:
        if pool not in wanted:
            raise UserError(f"no stage of dvc.yaml wants the pool {pool}, only {', '.join(wanted)}")


def _is_of_the_pipeline(stage: Any) -> bool:
    return isinstance(stage, PipelineStage) and stage.path_in_repo == "dvc.yaml"


def read_status(root: Path) -> dict[str, Any]:
    """What `dvc status` finds out of date: for each stage or .dvc file, the changes.

    Stages of pretraining/ do not count: what a retrain takes from them, the other stages tell.

    Raises:
        UserError: with DVC's own words if it fails.
    """
    found = read_status_of(root)
    return {name: changes for name, changes in found.items() if not name.startswith(_PRETRAINING)}


def read_status_of(root: Path, *targets: str) -> dict[str, Any]:
    """What `dvc status` finds of targets, such as another dvc.yaml; of all, if none is given.

    Raises:
        UserError: with DVC's own words if it fails.
    """
    result = subprocess.run(
        [sys.executable, "-m", "flows.pipeline.status", "--json", *targets],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise UserError(f"{' '.join(('dvc status', *targets))}: {result.stderr.strip()}")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def is_only_missing(found: Mapping[str, Any]) -> bool:
    """Whether `status` has found nothing but files that are not there."""
    return all(
        isinstance(change, dict)
        and all(state == "deleted" for states in change.values() for state in states.values())
        for changes in found.values()
        for change in changes
    )


def restore_outs(root: Path) -> None:
    """Restore missing outs, as far as DVC's cache has them."""
    command = [*DVC, "--wait-for-lock", "checkout", "--quiet"]
    subprocess.run(command, cwd=root, capture_output=True)


def _read_stage(stage: PipelineStage, upstream: Iterable[Any], root: Path) -> Stage:
    try:
        meta = Meta.model_validate(stage.meta or {})
    except ValidationError as error:
        raise UserError(
            f"dvc.yaml: meta of the stage {stage.name}: {describe_faults(error)}"
        ) from None
    outs = [(Path(out.fs_path).relative_to(root), out) for out in stage.outs]
    return Stage(
        name=stage.name,
        upstream=tuple(sorted(s.name for s in upstream if _is_of_the_pipeline(s))),
        meta=meta,
        params=tuple(sorted(key for dep in stage.params for key in dep.params)),
        metrics=tuple(path for path, out in outs if out.metric),
        plots=tuple(path for path, out in outs if out.plot),
        pages=tuple(path for path, _ in outs if path.suffix == ".html"),
        outs=tuple(path for path, _ in outs),
        trains=any(path.suffix == ".safetensors" for path, _ in outs),
    )


def find_training_and_later(pipeline: Sequence[Stage]) -> set[str]:
    """The stages that train, and all stages after one: their outs depend on how training went.

    Args:
        pipeline: as `read_pipeline`, each stage after those that it depends on.
    """
    found: set[str] = set()
    for stage in pipeline:
        if stage.trains or found.intersection(stage.upstream):
            found.add(stage.name)
    return found


def repro(stage: Stage, root: Path, env: Mapping[str, str], on_line: Say) -> Fate:
    """Bring one stage up to date with DVC; its dependencies must be.

    Raises:
        CommandError: if the stage fails or outlasts its time limit.
    """
    lines = follow(
        [*DVC, "--wait-for-lock", "repro", "--single-item", "--", stage.name],
        cwd=root,
        on_line=on_line,
        extra_env={**env, **make_environment()},
        time_limit=stage.meta.time_limit,
    )
    return _read_fate(stage.name, lines)


def _read_fate(name: str, lines: Sequence[str]) -> Fate:
    """What DVC did, by its output."""
    if f"Running stage '{name}':" in lines:
        return "ran"
    if any(line.startswith(f"Stage '{name}' is cached") for line in lines):
        return "cached"
    return "unchanged"


def skip_hints(say: Say) -> Say:
    """Hand on to `say` only the lines of `dvc repro` about the stage: no hints to use git."""
    hints = ("To track the changes", "To enable auto staging", "Use `dvc push`", "\tgit ", "\tdvc ")

    def say_if_about_the_stage(line: str) -> None:
        if line.strip() and not line.startswith(hints):
            say(line)

    return say_if_about_the_stage
