"""Integrity: whether MLflow's model, metrics and params are what the snapshot's stages made."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from flows.audit.findings import missing, wrong
from flows.audit.record import Finding
from flows.evidence.verify import describe_compiled, find_planted
from flows.pipeline.graph import Stage
from flows.pipeline.lock_and_cache import Cache, LockedStage, collect_outs, hash_each_file
from flows.processes.checked import locate_inside
from flows.processes.words import hash_md5, shorten_list
from flows.snapshots.earlier_layout import find_module, locate_module
from flows.snapshots.snapshot import PARAMS_FILE, Snapshot
from flows.tracking.register import NETWORKS, SCORES, SERVING
from flows.tracking.registry import copy_model
from flows.tracking.runs import flatten, list_stage_runs, select_numbers
from mammo.base.atomic_files import NETWORK_FILES, read_json
from mammo.base.errors import UserError

OPERATING_POINT = "mammo.serving.finding"
"""The module that came with the operating point: a commit that has it registers both."""


@dataclass(frozen=True)
class StoredModel:
    """A copy of a registered model as it lies in the artifact store."""

    predictor: Path  # folder
    code: Path  # folder with the package `mammo`
    serving: Path  # what MLflow runs to load it
    run: Any  # the id that it names as its run


def read_model(version: ModelVersion, folder: Path) -> StoredModel:
    """Copy a registered model into a folder and find its parts; nothing of it is run.

    Raises:
        UserError: if it cannot be read, or names parts outside its folder.
    """
    what = f"the registered model of version {version.version}"
    model = copy_model(version, folder)
    try:
        described = yaml.safe_load((model / "MLmodel").read_text())
        flavor = described["flavors"]["python_function"]
        return StoredModel(
            locate_inside(
                model, flavor["artifacts"]["predictor"]["path"], f"the predictor of {what}"
            ),
            locate_inside(model, flavor["code"], f"the code of {what}"),
            locate_inside(model, Path(flavor["model_code_path"]).name, f"the loader of {what}"),
            described.get("run_id"),
        )
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{what} cannot be read: {error}") from None


def check_model(
    version: ModelVersion, folder: Path, snapshot: Snapshot, stages: Sequence[LockedStage]
) -> Iterator[Finding]:
    """Find where the registered model is not made of the train stages' outs and the commit's code.

    Args:
        version: the registered version.
        folder: the snapshot, materialised.
        snapshot: the version's.
        stages: of its dvc.lock.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            model = read_model(version, Path(scratch))
        except UserError as error:
            yield missing(str(error))
            return
        if model.run != version.run_id:
            yield wrong(f"the registered model came from the run {model.run}, not {version.run_id}")
        yield from compare_with_commit(model, folder, snapshot, stages)
        whole = model.serving.parent  # the folder of the model
        for sentence in describe_compiled(find_planted(whole), "the registered model"):
            yield wrong(sentence)


def compare_with_commit(
    model: StoredModel, folder: Path, snapshot: Snapshot, stages: Sequence[LockedStage]
) -> Iterator[Finding]:
    """Find weights, settings and code of a model that are not those of a snapshot.

    Args:
        model: a copy of the registered model.
        folder: the snapshot, materialised.
        snapshot: that the model should have been made from.
        stages: of its dvc.lock.
    """
    outs = collect_outs(stages)
    wanted = {
        f"{name}/{Path(path).name}": (md5, path)
        for name, source in NETWORKS.items()
        for path, md5 in outs.items()
        if Path(path).parent == Path(source) and Path(path).name in NETWORK_FILES
    }
    if (folder / locate_module(OPERATING_POINT)).is_file():  # else the version is older than this
        wanted |= {name: (outs[path], path) for name, path in SCORES.items() if path in outs}
    text = snapshot.files.get(PARAMS_FILE, "").encode()
    settings = hashlib.md5(text, usedforsecurity=False).hexdigest()
    wanted["params.yaml"] = settings, "params.yaml"
    found = hash_each_file(model.predictor)
    for name, (md5, origin) in wanted.items():
        if name not in found:
            yield wrong(f"the registered model lacks {name}")
        elif found[name] != md5:
            yield wrong(f"{name} of the registered model is not the snapshot's {origin}")
    for name in sorted(found.keys() - wanted.keys()):
        yield wrong(f"the registered model holds {name}, which no stage made")
    code_then, code_now = hash_each_file(folder / "mammo"), hash_each_file(model.code / "mammo")
    other = [n for n in sorted(code_then | code_now) if code_then.get(n) != code_now.get(n)]
    # Files beside the package would be imported too, and before installed packages.
    other += sorted(name for name in hash_each_file(model.code) if not name.startswith("mammo/"))
    if other:
        yield wrong(
            f"the registered model carries other code than the commit: {shorten_list(other)}"
        )
    serving = locate_module(find_module(folder, SERVING) or SERVING)
    if not model.serving.is_file() or hash_md5(model.serving) != hash_md5(folder / serving):
        yield wrong(f"{model.serving.name} of the registered model is not the commit's {serving}")


def check_logged_numbers(
    run: Run,
    snapshot: Snapshot,
    locked: Sequence[LockedStage],
    stages: Sequence[Stage],
    cache: Cache,
) -> Iterator[Finding]:
    """Find params and metrics in MLflow that are not those of the snapshot and of its outs.

    Args:
        run: the parent run.
        snapshot: that the run ended with.
        locked: the stages of its dvc.lock.
        stages: of its dvc.yaml, which says which outs are metrics.
        cache: has the outs.
    """
    settings = flatten(yaml.safe_load(snapshot.files[PARAMS_FILE]))
    yield from _compare_params("the run retrain", run, settings)
    nested = {one.data.tags["stage"]: one for one in list_stage_runs(run)}
    outs = collect_outs(locked)
    for stage in stages:
        own = nested.get(stage.name)
        if own is None:
            yield wrong(f"MLflow has no run of the stage {stage.name} under {run.info.run_id}")
            continue
        used = {k: x for k, x in settings.items() if _is_under(k, stage.params)}
        yield from _compare_params(f"the run {stage.name}", own, used)
        for path in stage.metrics:
            scores = select_numbers(flatten(read_json(cache.path(outs[str(path)]))))
            for owner, holder in ((f"the run {stage.name}", own), ("the run retrain", run)):
                for key, value in scores.items():
                    logged = holder.data.metrics.get(f"{stage.name}/{key}")
                    if logged != value:
                        yield wrong(
                            f"the metric {stage.name}/{key} of {owner} is {logged} in MLflow, but "
                            f"{value} in {path}"
                        )


def _compare_params(owner: str, run: Run, settings: Mapping[str, Any]) -> Iterator[Finding]:
    for key, value in settings.items():
        logged = run.data.params.get(key)
        if logged != str(value):
            yield wrong(
                f"the param {key} of {owner} is {logged} in MLflow, but {value} in params.yaml of "
                f"the snapshot"
            )


def _is_under(key: str, parents: tuple[str, ...]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)
