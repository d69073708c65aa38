"""The whole audit, on a whole small project: the model is made again, and nothing else changes.

Under either standard: another fingerprint and a pipeline that ran with another seed stand in for a
machine that computes otherwise, which would end elsewhere than the record, and as far off. Some
tests audit without a re-run what takes a whole project to see: signatures, copies, a remote.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import psutil
import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.audit.record import Audit
from flows.audit.reproduction import run_again
from flows.cli.app import app
from flows.evidence.keys import FOLDER, make_key
from flows.pipeline.known_outs import IMAGES_OUT, MANIFEST_OUT, SPLIT_OUT
from flows.processes.follow import CommandError
from flows.processes.run_git import git
from flows.snapshots.snapshot import materialise, read_tag
from flows.tracking.names import MODEL
from mammo.base.settings import Params, load_params
from tests.imports import ROOT
from tests.support.small_project import Retrained, command, make_environment, mammoflow, store
from tests.support.tampering import (
    assert_caught,
    exchange_weights,
    forge,
    list_entries,
    locate_artifact,
    locate_cached,
    put_into_cache,
    quick_audit,
    version,
)

pytestmark = pytest.mark.timeout(1800)

SCHEMA = ROOT / "flows" / "audit" / "audit.schema.json"
HERE = {"matrix product": "a1", "convolution forward": "b2"}
ELSEWHERE = {"matrix product": "a1", "convolution forward": "c3", "convolution on the GPU": "d4"}


def everything(root: Path) -> dict[str, object]:
    """What an audit must leave as it is."""
    client = store(root)
    version = client.get_model_version(MODEL, "1")
    return {
        "status": git(root, "status", "--porcelain"),
        "refs": git(root, "show-ref"),
        "head": git(root, "symbolic-ref", "HEAD"),
        "worktrees": git(root, "worktree", "list"),
        "files": {
            str(path): path.stat().st_mtime_ns
            for folder in ("data", "outputs", ".dvc/cache/files")
            for path in sorted((root / folder).rglob("*"))
            if path.is_file()
        },
        "tags": {k: v for k, v in version.tags.items() if not k.startswith(("audit_", "audit."))},
        "aliases": version.aliases,
    }


def change_environment(root: Path, **recorded: object) -> None:
    """Let this be recorded of the environment that version 1 was made in."""
    path = locate_artifact(root, "environment.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **recorded}))


@pytest.fixture(scope="module")
def moved_on(registered: Retrained) -> Path:
    """The project at a later commit, with other settings and other code than version 1's."""
    root = registered.root
    params, code = root / "params.yaml", root / "stages" / "preprocess.py"
    assert "seed: 20" in params.read_text()
    params.write_text(params.read_text().replace("seed: 20", "seed: 21"))
    code.write_text(code.read_text() + "\nLATER = True\n")
    command(root, "git", "commit", "-qam", "later")
    return root


@pytest.fixture(scope="module")
def audited(moved_on: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Version 1, audited from a later commit's checkout, with another thread count outside.

    Of stages that another project ran a retrain cannot know that it was on this machine.
    """
    root, report = moved_on, tmp_path_factory.mktemp("audit")
    before = everything(root)
    change_environment(root, elsewhere={})
    arguments = ("audit", "1", "--report", str(report))
    said = mammoflow(root, *arguments, extra_env={"OMP_NUM_THREADS": "3"}).stdout
    assert everything(root) == before
    return said, report


def test_the_first_version_is_reproduced_bit_for_bit(audited: tuple[str, Path]) -> None:
    said, _ = audited
    assert said.splitlines()[2].startswith("standard: bit for bit: ")
    # Whether its stages ran is chance: they may come from another project's cache.
    assert re.search(
        r"^needs (about .*, as the stages took when they ran|the time of )", said, re.M
    )
    assert "Running stage 'train_classifier'" in said
    assert "REPRODUCED BIT FOR BIT" in said
    assert f"{MODEL} version 1 was reproduced bit for bit" in said


def test_the_json_is_what_its_schema_says(audited: tuple[str, Path]) -> None:
    content = json.loads((audited[1] / "audit.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    assert content["verdict"] == "reproduced bit for bit"
    assert len(content["stages"]) == 9
    assert {out["likeness"] for stage in content["stages"] for out in stage["outs"]} == {
        "identical"
    }
    assert all(metric["now"] == metric["then"] for metric in content["metrics"])
    assert all(check["passed"] for check in content["checks"])
    assert content["environment_differences"] == [
        {"what": "OMP_NUM_THREADS", "then": "none", "now": "3", "moves_bits": False}
    ]
    assert sum(split["women"] for split in content["splits"].values()) == 24


def test_the_schema_is_the_records() -> None:
    assert json.loads(SCHEMA.read_text()) == Audit.model_json_schema()


def test_the_page_stands_alone_and_says_the_verdict_first(audited: tuple[str, Path]) -> None:
    page = (audited[1] / "index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    body = page[page.index("<body>") :]
    places = [
        body.index(text)
        for text in ("reproduced bit for bit", "Which standard applies", "Who made it, from what")
    ]
    assert places == sorted(places)


def test_the_report_is_with_the_versions_run(audited: tuple[str, Path], moved_on: Path) -> None:
    client = store(moved_on)
    version = client.get_model_version(MODEL, "1")
    assert version.tags["audit_verdict"] == "reproduced bit for bit"
    assert version.tags["audit_snapshot_digest"] == version.tags["snapshot_digest"]
    (folder,) = client.list_artifacts(str(version.run_id), "audits")
    audits = client.list_artifacts(str(version.run_id), folder.path)
    names = {Path(item.path).name for item in audits}
    assert names == {"index.html", "audit.json"}


def test_stopped_midway_it_leaves_nothing_behind(moved_on: Path) -> None:
    root = moved_on
    before = everything(root)
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "audit", "1"],
        cwd=root,
        env={**make_environment(root), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "Running stage 'preprocess'" in line:
            break
    family = psutil.Process(child.pid).children(recursive=True)
    assert family
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode != 0
    deadline = time.monotonic() + 20
    while any(p.is_running() and p.status() != "zombie" for p in family):
        assert time.monotonic() < deadline, [p.cmdline() for p in family if p.is_running()]
        time.sleep(0.1)
    assert everything(root) == before
    assert list((root / ".dvc" / "tmp" / "snapshots").iterdir()) == []


def test_by_hand_an_auditor_checks_the_tag_out_and_gets_the_same(
    registered: Retrained, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    command(registered.root, "git", "clone", "-q", str(registered.root), str(clone))
    command(clone, "git", "checkout", "-q", "model/v1")
    command(clone, "dvc", "cache", "dir", "--local", str(registered.root / ".dvc" / "cache"))
    command(clone, "dvc", "pull", "-q", "data.dvc")
    command(clone, "dvc", "repro")
    assert command(clone, "git", "status", "--porcelain").stdout == ""
    recorded = read_tag(registered.root, "model/v1").files
    assert (clone / "dvc.lock").read_text() == recorded["dvc.lock"]
    assert "up to date" in command(clone, "dvc", "status").stdout


@pytest.mark.usefixtures("unmeasured")
def test_what_the_cache_lacks_is_fetched_from_a_remote(root: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(root / ".dvc" / "cache", remote)
    shutil.rmtree(root / ".dvc" / "cache")
    config = root / ".dvc" / "config.local"
    config.write_text(f"[core]\n    remote = there\n['remote \"there\"']\n    url = {remote}\n")
    try:
        result = quick_audit()
    finally:
        config.unlink()
    assert result.exit_code == 0, result.output
    assert "fetching what the cache lacks from DVC's remote" in result.output


@pytest.mark.usefixtures("unmeasured")
def test_a_woman_who_is_in_train_and_under_another_id_in_test_is_found(root: Path) -> None:
    """As a pipeline would leave it that looks for no copies: her pictures are there twice."""
    snapshot = read_tag(root, "model/v1")
    split = pd.read_csv(locate_cached(root, snapshot, SPLIT_OUT), dtype=str)
    manifest = pd.read_csv(locate_cached(root, snapshot, MANIFEST_OUT), dtype=str)
    manifest = manifest.merge(split, on="patient_id").set_index("path")
    images = locate_cached(root, snapshot, IMAGES_OUT)
    listing = json.loads(images.read_text())
    hashes = {entry["relpath"]: entry["md5"] for entry in listing}
    seen, twin = (list(manifest.index[manifest["split"] == x][:4]) for x in ("train", "test"))
    same = dict(zip(twin, (hashes[path] for path in seen), strict=True))
    for entry in listing:
        entry["md5"] = same.get(entry["relpath"], entry["md5"])
    md5 = put_into_cache(root, json.dumps(listing).encode(), ".dir")

    def change(stages: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        for entry in list_entries(stages, IMAGES_OUT):
            entry["md5"] = md5

    forge(root, change)
    result = quick_audit()
    assert result.exit_code == 1, result.output
    assert "RECORDS AGREE, NOT RE-RUN, BUT UNSOUND" in result.output
    assert "4 pictures (" in result.output
    assert "(train)" in result.output
    assert "(test)" in result.output


@pytest.fixture
def signed(
    root: Path, unmeasured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Version 1, signed; the branch and MLflow are put back with the rest."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "private"))
    make_key(root, "server", "builder", None)
    make_key(root, "lab", "auditor", None)
    result = CliRunner().invoke(app, ["evidence", "sign", "1"])
    assert result.exit_code == 0, result.output
    yield
    shutil.rmtree(root / "keys")


@pytest.mark.usefixtures("signed")
def test_an_audit_verifies_what_was_signed_and_signs_its_verdict(root: Path) -> None:
    result = quick_audit()
    assert result.exit_code == 0, result.output
    assert "evidence: The signed evidence of version 1 holds." in result.output
    verified = CliRunner().invoke(app, ["verify", "1"])
    assert verified.exit_code == 0, verified.output
    assert "audit verdict of version 1, by lab (auditor)" in verified.output


@pytest.mark.usefixtures("signed")
def test_a_version_that_was_replaced_by_another_consistent_one_is_found(root: Path) -> None:
    """Registry, git, DVC's cache and MLflow's artifacts agree: only what was signed does not."""
    exchange_weights(root)
    result = quick_audit()
    assert_caught(
        result, 1, "the model has other bytes than line 1 (provenance of version 1) names"
    )
    wrong = [line for line in result.output.splitlines() if ", wrong: " in line]
    assert {line.partition(",")[0] for line in wrong} == {"evidence"}


@pytest.fixture(scope="module")
def remade(registered: Retrained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What version 1's pipeline makes with another seed: outputs/ and dvc.lock."""
    kept = tmp_path_factory.mktemp("remade")
    with materialise(registered.root, read_tag(registered.root, "model/v1")) as folder:
        params = folder / "params.yaml"
        assert "seed: 20" in params.read_text()
        params.write_text(params.read_text().replace("seed: 20", "seed: 33"))
        run_again(folder, "data", lambda line: None)
        shutil.copytree(folder / "outputs", kept / "outputs")
        shutil.copy(folder / "dvc.lock", kept / "dvc.lock")
    return kept


@pytest.fixture
def other_bytes(remade: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, on a machine where a re-run gives `remade`, and HERE is the fingerprint."""

    def run(folder: Path, data: str, say: Callable[[str], None]) -> None:
        shutil.copytree(remade / "outputs", folder / "outputs", dirs_exist_ok=True)
        shutil.copy(remade / "dvc.lock", folder / "dvc.lock")

    monkeypatch.setattr("flows.audit.audit.run_again", run)
    monkeypatch.setattr("flows.tracking.arithmetic.measure", lambda folder: HERE)
    # Whether a stage gives the same twice on one machine is not asked here, and takes a training.
    monkeypatch.setattr("flows.audit.reproduction._gives_the_same_again", lambda *arguments: True)
    return root


def audit_by(monkeypatch: pytest.MonkeyPatch, **bounds: float) -> None:
    """Let the auditor's settings have these bounds."""
    params = load_params(ROOT / "params.yaml")
    update: dict[str, Any] = {"audit": params.audit.model_copy(update=bounds)}
    changed: Params = params.model_copy(update=update)
    monkeypatch.setattr("flows.tracking.preflight.load_params", lambda path: changed)


@pytest.fixture
def easily_equivalent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that two small networks which have learned nothing keep, on ten women."""
    margins = {"auroc_margin": 1.0, "average_precision_margin": 1.0}
    audit_by(monkeypatch, **margins, rank_correlation=-1.0, agreement=0.0, women=1)


def recorded_as(root: Path, arithmetic: dict[str, str]) -> None:
    """Let version 1 have been made with this arithmetic."""
    change_environment(root, arithmetic=arithmetic, elsewhere={})


def audit(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", "1", *arguments])


def ended(result: Result, status: int, verdict: str) -> str:
    """What the audit said, if it ended like this."""
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == status, result.output
    assert verdict in result.output, result.output
    return result.output


def test_quick_or_not_the_standard_is_said_first(other_bytes: Path) -> None:
    recorded_as(other_bytes, HERE)
    said = ended(quick_audit(), 0, "RECORDS AGREE").splitlines()
    assert said[2] == (
        "standard: bit for bit: this machine computes all 2 families of kernels as the one that "
        "made the version; so every byte must be the same"
    )
    assert version().tags["audit_standard"] == "bit for bit"
    recorded_as(other_bytes, ELSEWHERE)
    said = ended(quick_audit(), 0, "RECORDS AGREE").splitlines()
    assert said[2].startswith(
        "standard: equivalence: this machine computes differently from the one that made the "
        "version: convolution forward, convolution on the GPU (not there now); so bytes may differ"
    )
    recorded_as(other_bytes, {})
    said = ended(quick_audit(), 0, "RECORDS AGREE").splitlines()
    assert "no fingerprint of the arithmetic was recorded of the one that made" in said[2]


def test_arithmetic_that_cannot_be_measured_is_another(
    other_bytes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> dict[str, str]:
        raise CommandError("no GPU answers")

    recorded_as(other_bytes, HERE)
    monkeypatch.setattr("flows.tracking.arithmetic.measure", fails)
    said = ended(quick_audit(), 0, "RECORDS AGREE")
    assert "standard: equivalence: the version's own code could not tell" in said
    assert "standard, note: this machine's arithmetic could not be measured: no GPU answers" in said


@pytest.mark.usefixtures("easily_equivalent")
def test_the_same_arithmetic_allows_no_other_byte(other_bytes: Path) -> None:
    recorded_as(other_bytes, HERE)
    said = ended(audit(), 1, "NOT REPRODUCED")
    assert "the stage train_detector made another outputs/train_detector/" in said
    assert "scoring the recorded weights" not in said


@pytest.mark.usefixtures("easily_equivalent")
def test_under_other_arithmetic_a_model_that_does_the_same_is_reproduced_in_effect(
    other_bytes: Path, tmp_path: Path
) -> None:
    recorded_as(other_bytes, ELSEWHERE)
    said = ended(audit("--report", str(tmp_path)), 0, "REPRODUCED IN EFFECT")
    assert "scoring the recorded weights on this machine" in said
    assert version().tags["audit_verdict"] == "reproduced in effect"
    content = json.loads((tmp_path / "audit.json").read_text())
    jsonschema.validate(
        content, json.loads((ROOT / "flows" / "audit" / "audit.schema.json").read_text())
    )
    assert content["standard"]["name"] == "equivalence"
    assert content["rescoring"]["largest"] == 0  # the same machine
    assert content["equivalence"]["outcome"] == "equivalent"
    assert len(content["points"]["then"]) == content["equivalence"]["breasts"]
    likeness = {stage["stage"]: stage["likeness"] for stage in content["stages"]}
    assert likeness.pop("preprocess") == likeness.pop("split") == "identical"
    assert likeness["train_classifier"] == likeness["evaluate"] == "follows from training"
    assert set(likeness.values()) <= {"follows from training", "identical"}
    page = (tmp_path / "index.html").read_text()
    body = page[page.index("<body>") :]
    places = [
        body.index(text)
        for text in ("Which standard applies", "convolution on the GPU</td>", "<svg", "Who made it")
    ]
    assert places == sorted(places)
    assert "http://" not in page
    assert "follows from training" in page


def test_few_test_women_are_too_few_to_tell(
    other_bytes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit_by(monkeypatch, women=30)
    recorded_as(other_bytes, ELSEWHERE)
    said = ended(audit(), 2, "TOO SMALL TO TELL")
    assert "of the test women have a positive breast" in said


@pytest.mark.usefixtures("easily_equivalent")
def test_weights_that_were_exchanged_with_all_that_names_them_are_found(
    other_bytes: Path,
) -> None:
    """No record contradicts another; only the predictions are those of the old weights."""
    root = other_bytes
    recorded_as(root, ELSEWHERE)
    exchange_weights(root)
    ended(quick_audit(), 0, "RECORDS AGREE")
    said = ended(audit(), 1, "NOT REPRODUCED")
    assert "the recorded predictions are not what the recorded weights give" in said


def test_what_is_made_before_training_must_be_as_it_was(
    other_bytes: Path, remade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another split is another split, whatever the models do."""
    recorded_as(other_bytes, ELSEWHERE)

    def run(folder: Path, data: str, say: Callable[[str], None]) -> None:
        shutil.copytree(remade / "outputs", folder / "outputs", dirs_exist_ok=True)
        table = folder / "outputs/split/split.csv"
        table.write_text(table.read_text().replace("validation", "train", 1))
        lock = yaml.safe_load((remade / "dvc.lock").read_text())
        lock["stages"]["split"]["outs"][-1]["md5"] = "0" * 32
        (folder / "dvc.lock").write_text(yaml.safe_dump(lock))

    monkeypatch.setattr("flows.audit.audit.run_again", run)
    said = ended(audit(), 1, "NOT REPRODUCED")
    assert "the stage split made another outputs/split/split.csv" in said
    assert "was validation, is train" in said
