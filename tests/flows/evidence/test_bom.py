"""The bill of materials: valid by CycloneDX's own schema, the same bytes again, and no ids."""

import json
from pathlib import Path

import pytest
import yaml

from flows.evidence.bom import BOM, make_bom, measure_subgroups
from flows.pipeline.lock_and_cache import Cache, read_lock
from flows.snapshots.snapshot import Snapshot
from flows.tracking.registry import get_version, read_artifact, read_run_id
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.judged import women
from tests.support.tampering import put_into_cache

FILES = ("params.yaml", "plan.yaml", "data.dvc", "dvc.lock")
WEIGHTS = "artifacts/predictor/classifier/weights.safetensors"
METRICS = {
    "evaluate/test.breast.auroc.value": 0.9,
    "evaluate/test.breast.auroc.low": 0.8,
    "evaluate/test.breast.auroc.high": 0.95,
    "evaluate/validation.breast.auroc.value": 0.7,
    "preprocess/images": 440.0,
}

LICENCES = {"numpy": "BSD-3-Clause", "not-in-the-lock": "MIT"}


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """The project's own, with all nine stages."""
    return Snapshot("0" * 40, {name: (ROOT / name).read_text() for name in FILES})


@pytest.fixture(scope="module")
def bom(snapshot: Snapshot) -> str:
    lock = (ROOT / "requirements.lock").read_text()
    group = {"type": "auroc", "value": "0.8", "slice": "density A: 10 breasts, 3 positive"}
    model = {WEIGHTS: "a" * 64, "MLmodel": "b" * 64}
    return make_bom(snapshot, lock, model, METRICS, [group], LICENCES)


def test_the_bill_names_each_package_of_the_lock_with_its_hashes(bom: str) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    packages = [x for x in json.loads(bom)["components"] if x["type"] == "library"]
    pins = [line for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    assert len(packages) == len(pins) > 100
    hashes = sum(len(package["hashes"]) for package in packages)
    assert hashes == lock.count("--hash=sha256:")
    assert len({package["bom-ref"] for package in packages}) == len(packages)


def test_a_package_has_its_licence_where_the_environment_recorded_one(bom: str) -> None:
    parts = json.loads(bom)["components"]
    named = {x["name"]: x["licenses"] for x in parts if "licenses" in x}
    assert named == {"numpy": [{"license": {"name": "BSD-3-Clause"}}]}


def test_the_model_has_a_card_with_metrics_intervals_and_groups(bom: str) -> None:
    model = json.loads(bom)["metadata"]["component"]
    assert model["components"] == [
        {
            "type": "file",
            "bom-ref": WEIGHTS,
            "name": WEIGHTS,
            "hashes": [{"alg": "SHA-256", "content": "a" * 64}],
        }
    ]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics == [
        {
            "type": "auroc",
            "value": "0.9",
            "slice": "test women, by breast",
            "confidenceInterval": {"lowerBound": "0.8", "upperBound": "0.95"},
        },
        {"type": "auroc", "value": "0.8", "slice": "density A: 10 breasts, 3 positive"},
    ]
    parameters = model["modelCard"]["modelParameters"]
    assert parameters["task"] == "classification of mammograms: cancer"
    assert parameters["datasets"] == [{"ref": "data"}]


def test_the_data_have_a_hash_and_counts(bom: str, snapshot: Snapshot) -> None:
    (data,) = (x for x in json.loads(bom)["components"] if x["type"] == "data")
    md5 = yaml.safe_load(snapshot.files["data.dvc"])["outs"][0]["md5"]
    said = {x["name"]: x["value"] for x in data["data"][0]["contents"]["properties"]}
    assert said == {"dvc:md5": md5, "preprocess/images": "440"}


def test_the_nine_stages_are_its_formulation(bom: str, snapshot: Snapshot) -> None:
    (workflow,) = json.loads(bom)["formulation"][0]["workflows"]
    names = [stage.name for stage in read_lock(snapshot)]
    assert [task["name"] for task in workflow["tasks"]] == names
    assert len(names) == 9
    after = {link["ref"]: link["dependsOn"] for link in workflow["taskDependencies"]}
    assert after["stage:split"] == ["stage:preprocess"]


def test_the_same_records_give_the_same_bytes(bom: str, snapshot: Snapshot) -> None:
    again = json.loads(bom)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    group = again["performanceMetrics"][1:]
    lock = (ROOT / "requirements.lock").read_text()
    reordered = dict(reversed(METRICS.items()))
    model = {"MLmodel": "c" * 64, WEIGHTS: "a" * 64}  # MLflow writes the time into MLmodel
    assert make_bom(snapshot, lock, model, reordered, group, LICENCES) == bom


def test_what_does_not_fit_the_schema_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(
        UserError, match=r"bom\.cdx\.json does not fit the schema of CycloneDX 1\.6"
    ):
        make_bom(snapshot, None, {}, {}, [{"type": 1}], {})


def test_groups_are_measured_with_intervals_and_name_no_woman(tmp_path: Path) -> None:
    cases = women(40, seed=3)
    breasts = cases.drop(columns="density").assign(split="test")
    images = cases.assign(image_id="1", age=50.0, implant=0, machine_id="29")
    outs = []
    for path, table in (
        ("outputs/evaluate/breasts.csv", breasts),
        ("outputs/preprocess/manifest.csv", images),
    ):
        md5 = put_into_cache(tmp_path, table.to_csv(index=False).encode())
        outs.append({"path": path, "md5": md5})
    lock = {"schema": "2.0", "stages": {"evaluate": {"cmd": "x", "outs": outs}}}
    files = {name: (ROOT / name).read_text() for name in ("params.yaml", "plan.yaml")}
    files["dvc.lock"] = yaml.safe_dump(lock)
    cache = Cache(tmp_path / ".dvc" / "cache" / "files" / "md5")
    found = measure_subgroups(Snapshot("0" * 40, files), cache)
    assert [x["slice"] for x in found] == [
        "age 50 to 59: 80 breasts, 14 positive",
        "density A: 40 breasts, 7 positive",
        "density B: 40 breasts, 7 positive",
        "implant no: 80 breasts, 14 positive",
        "machine_id 29: 80 breasts, 14 positive",
    ]
    for metric in found:
        interval = metric["confidenceInterval"]
        low, high = float(interval["lowerBound"]), float(interval["upperBound"])
        assert 0 < low < float(metric["value"]) < high <= 1
    assert "w00" not in json.dumps(found)
    # A version from before there was a plan has its policy, and with it the groups, in params.yaml.
    params = yaml.safe_load(files["params.yaml"])
    params["policy"] = yaml.safe_load(files.pop("plan.yaml"))["policy"]
    earlier = Snapshot("0" * 40, {**files, "params.yaml": yaml.safe_dump(params)})
    assert measure_subgroups(earlier, cache) == found
    assert measure_subgroups(earlier, Cache(tmp_path / "empty")) == []


def test_the_bill_is_kept_with_the_run_and_signed_with_the_version(
    root: Path, signed: Path
) -> None:
    kept = read_artifact(read_run_id(get_version(2)), BOM)
    assert kept is not None
    assert (signed / "export" / BOM).read_text() == kept
    assert str(root) not in kept
