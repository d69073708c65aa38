"""The bill of materials of a version, as CycloneDX: packages, model with its card, data, stages.

The library's classes know neither a model card nor a formulation, so the document is built as the
schema has it, and its validator, which needs no network, has the last word. The same records give
the same bytes: no time, no number of a version and no id of a run is in it.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from packaging.utils import canonicalize_name

from flows.evidence.verify import write_canonical
from flows.pipeline.known_outs import BREASTS_OUT, MANIFEST_OUT
from flows.pipeline.lock_and_cache import (
    Cache,
    LockedStage,
    collect_outs,
    open_cache,
    read_data_out,
    read_lock,
)
from flows.processes.run_git import list_paths, read_file_at
from flows.snapshots.earlier_layout import read_subgroups
from flows.snapshots.snapshot import PARAMS_FILE, Snapshot
from flows.tracking.names import MODEL
from flows.tracking.registry import read_artifact, read_environment, read_run_id, read_snapshot
from mammo.base.errors import UserError
from mammo.base.settings import parse_params

BOM = "bom.cdx.json"
"""Its name among the artifacts of a version's run, and in an export."""

WEIGHTS_FILE = re.compile(r"artifacts/predictor/(?P<part>\w+)/weights\.safetensors")

Json = dict[str, Any]


def keep_bom(root: Path, version: ModelVersion, model: Mapping[str, str]) -> str:
    """The bill of materials of a version, as its run has it; it is made if there is none.

    Args:
        root: a clone with the version's commit.
        version: registered.
        model: SHA-256 of each file of its model.
    """
    run = read_run_id(version)
    if (kept := read_artifact(run, BOM)) is not None:
        return kept
    snapshot, client = read_snapshot(version), MlflowClient()
    groups = measure_subgroups(snapshot, open_cache(root))
    packages = read_locked_packages_of(root, snapshot)
    environment = read_environment(version)
    licences = environment.licences if environment is not None else {}
    metrics = client.get_run(run).data.metrics
    text = make_bom(snapshot, packages, model, metrics, groups, licences)
    client.log_text(run, text, BOM)
    return text


def read_locked_packages_of(root: Path, snapshot: Snapshot) -> str | None:
    """The text of the requirements.lock of a snapshot's commit; None if it has none."""
    name = "requirements.lock"
    if not list_paths(root, snapshot.commit, name):
        return None
    return read_file_at(root, snapshot.commit, name)


def make_bom(
    snapshot: Snapshot,
    locked_packages: str | None,
    model: Mapping[str, str],
    metrics: Mapping[str, float],
    subgroups: Sequence[Json],
    licences: Mapping[str, str],
) -> str:
    """The bill of materials as canonical JSON.

    Args:
        snapshot: of the version.
        locked_packages: the text of the commit's requirements.lock, if it has one.
        model: SHA-256 of each file of the model.
        metrics: of the version's run, by MLflow's names.
        subgroups: performance metrics, as `measure_subgroups` gives them.
        licences: of packages, by their names, as the environment of the version recorded them.

    Raises:
        UserError: if the document does not fit CycloneDX's schema.
    """
    data, data_hash = read_data_out(snapshot)
    packages = list(_name_packages(locked_packages or "", licences))
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"mammoflow:{snapshot.digest}")
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": MODEL,
                "version": snapshot.digest,
                "description": "Probability of breast cancer for each image of a mammogram. "
                "Research use.",
                "components": _name_weights(model),
                "modelCard": _make_card(snapshot, metrics, subgroups),
            }
        },
        "components": [*packages, _describe_data(data, data_hash, metrics)],
        "dependencies": [
            {"ref": "model", "dependsOn": ["data", *(part["bom-ref"] for part in packages)]}
        ],
        "formulation": [_describe_stages(read_lock(snapshot), data)],
    }
    text = write_canonical(content).decode() + "\n"
    _require_valid(text)
    return text


def _require_valid(text: str) -> None:
    """Make sure that a document fits the schema.

    Raises:
        UserError: if it does not.
    """
    from cyclonedx.schema import SchemaVersion  # not at the top: it takes seconds
    from cyclonedx.validation.json import JsonStrictValidator

    if (fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise UserError(f"{BOM} does not fit the schema of CycloneDX 1.6: {fault}")


def _name_weights(model: Mapping[str, str]) -> list[Json]:
    """The files with weights among those of a model."""
    return [
        {
            "type": "file",
            "bom-ref": name,
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, digest in sorted(model.items())
        if WEIGHTS_FILE.fullmatch(name)
    ]


def _describe_data(data: str, data_hash: str, metrics: Mapping[str, float]) -> Json:
    """The data: their folder, DVC's hash, and counts."""
    return {
        "type": "data",
        "bom-ref": "data",
        "name": data,
        "version": data_hash,
        "data": [
            {
                "type": "dataset",
                "name": data,
                "description": "Mammograms as DICOM files with their labels, by pseudonym.",
                "contents": {"properties": _count_cases(metrics, data_hash)},
                "sensitiveData": ["health data of pseudonymous women, not contained in this file"],
            }
        ],
    }


def measure_subgroups(snapshot: Snapshot, cache: Cache) -> list[Json]:
    """The auROC, with its interval, in each group of test women that the gate would judge.

    Args:
        snapshot: of the version.
        cache: DVC's; without the outs of evaluate and preprocess there are no groups.
    """
    # Not at the top: they import scikit-learn.
    from mammo.assurance.promotion_rule import add_groups
    from mammo.evaluation.metrics import evaluate

    params = parse_params(snapshot.files[PARAMS_FILE])
    subgroups = read_subgroups(snapshot)
    outs = collect_outs(read_lock(snapshot))
    wanted = [outs.get(BREASTS_OUT), outs.get(MANIFEST_OUT)]
    if any(md5 is None or cache.state(md5) != "good" for md5 in wanted):
        return []
    names = {"patient_id": str, "image_id": str, "laterality": str}
    breasts, images = (
        pd.read_csv(BytesIO(cache.path(str(md5)).read_bytes()), dtype=names) for md5 in wanted
    )
    by = subgroups.by
    breasts = add_groups(breasts[breasts["split"] == "test"], images, by)
    found = []
    for column in by:
        for value in sorted(breasts[column].unique()):
            cases = breasts[breasts[column] == value]
            positives = int(cases["target"].sum())
            if min(positives, len(cases) - positives) < subgroups.positives:
                continue
            auroc = evaluate(cases, 0.5, params.evaluate, params.seed).scores["auroc"]
            where = f"{column} {value}: {len(cases)} breasts, {positives} positive"
            found.append(_make_metric("auroc", auroc.value, auroc.low, auroc.high, where))
    return found


def _make_card(snapshot: Snapshot, metrics: Mapping[str, float], subgroups: Sequence[Json]) -> Json:
    settings = yaml.safe_load(snapshot.files[PARAMS_FILE])
    targets = ", ".join(settings["evaluate"]["target"])
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": f"classification of mammograms: {targets}",
            "architectureFamily": "convolutional neural network",
            "modelArchitecture": settings["classifier"]["backbone"],
            "datasets": [{"ref": "data"}],
            "inputs": [{"format": "DICOM"}],
            "outputs": [
                {"format": "probability of an image, 0 to 1"},
                {"format": "box of the breast, in pixels"},
                {"format": "heatmap, PNG"},
            ],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [*_name_metrics(metrics), *subgroups],
        },
        "considerations": {
            "useCases": ["research on retraining, evaluation and audit of classifiers"],
            "technicalLimitations": ["not a medical device; no use for the care of a patient"],
        },
    }


def _name_metrics(metrics: Mapping[str, float]) -> Iterator[Json]:
    """Each score of the test women that has an interval."""
    begin, end = "evaluate/test.", ".value"
    for name in sorted(metrics):
        if name.startswith(begin) and name.endswith(end):
            whole = name.removesuffix(end)
            bounds = metrics.get(f"{whole}.low"), metrics.get(f"{whole}.high")
            kind, _, score = whole.removeprefix(begin).rpartition(".")
            yield _make_metric(score, metrics[name], *bounds, f"test women, by {kind}")


def _make_metric(
    name: str, value: float, low: float | None, high: float | None, where: str
) -> Json:
    found: Json = {"type": name, "value": repr(float(value)), "slice": where}
    if low is not None and high is not None:
        found["confidenceInterval"] = {
            "lowerBound": repr(float(low)),
            "upperBound": repr(float(high)),
        }
    return found


def _count_cases(metrics: Mapping[str, float], data_hash: str) -> list[Json]:
    """What is said of the data: DVC's hash, and how many there are; nothing of a single woman."""
    counts = {
        name: value
        for name, value in metrics.items()
        if name.startswith(("split/", "preprocess/images")) and float(value).is_integer()
    }
    found = {"dvc:md5": data_hash, **{name: str(int(value)) for name, value in counts.items()}}
    return [{"name": name, "value": value} for name, value in sorted(found.items())]


def _name_packages(text: str, licences: Mapping[str, str]) -> Iterator[Json]:
    """The packages of a requirements.lock, each with the hashes of its files and its licence."""
    for entry in re.split(r"\n(?=\S)", text):
        pin = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\\n]*))?", entry)
        if pin is None:
            continue
        name, version = canonicalize_name(pin[1]), pin[2]
        purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
        found: Json = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "hashes": [
                {"alg": "SHA-256", "content": digest}
                for digest in sorted(set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)))
            ],
        }
        if name in licences:
            found["licenses"] = [{"license": {"name": licences[name]}}]
        if pin[3] and pin[3].strip():
            found["properties"] = [{"name": "python:marker", "value": pin[3].strip()}]
        yield found


def _describe_stages(stages: Sequence[LockedStage], data: str) -> Json:
    """The pipeline: each stage's command, what it read and what it made, with DVC's hashes."""
    makers = {path: stage.name for stage in stages for path in stage.outs}
    tasks = []
    links = []
    for stage in stages:
        read = [{"name": f"read {path}", "value": md5} for path, md5 in sorted(stage.deps.items())]
        made = [{"name": f"made {path}", "value": md5} for path, md5 in sorted(stage.outs.items())]
        tasks.append(
            {
                "bom-ref": f"stage:{stage.name}",
                "uid": stage.name,
                "name": stage.name,
                "taskTypes": ["build"],
                "steps": [{"commands": [{"executed": f"python -m stages.{stage.name}"}]}],
                "properties": [*read, *made],
            }
        )
        before = sorted({f"stage:{makers[path]}" for path in stage.deps if path in makers})
        links.append({"ref": f"stage:{stage.name}", "dependsOn": before})
    return {
        "bom-ref": "formulation",
        "workflows": [
            {
                "bom-ref": "pipeline",
                "uid": "dvc.yaml",
                "name": "dvc.yaml",
                "taskTypes": ["build"],
                "resourceReferences": [{"ref": "data"}],
                "description": f"from {data} to the model",
                "tasks": tasks,
                "taskDependencies": links,
            }
        ],
    }
