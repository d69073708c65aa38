"""The whole audit, on a whole small project: the model is made again, and nothing else changes."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import psutil
import pytest

from flows.audit.record import Audit
from flows.processes.run_git import git
from flows.tracking.names import MODEL
from tests.imports import ROOT
from tests.support.small_project import Retrained, make_environment, mammoflow, store

pytestmark = pytest.mark.timeout(1800)

SCHEMA = ROOT / "flows" / "audit" / "audit.schema.json"


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


@pytest.fixture(scope="module")
def audited(leaking: Retrained, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Version 1, audited from a later commit's checkout, with another thread count outside."""
    root, report = leaking.root, tmp_path_factory.mktemp("audit")
    before = everything(root)
    arguments = ("audit", "1", "--report", str(report))
    said = mammoflow(root, *arguments, extra_env={"OMP_NUM_THREADS": "3"}).stdout
    assert everything(root) == before
    return said, report


def test_the_first_version_is_reproduced_bit_for_bit(audited: tuple[str, Path]) -> None:
    said, _ = audited
    assert said.splitlines()[2].startswith("standard: bit for bit: ")
    assert re.search(r"needs about (a minute|\d+ minutes), as the stages took when they ran", said)
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


def test_the_report_is_with_the_versions_run(audited: tuple[str, Path], leaking: Retrained) -> None:
    client = store(leaking.root)
    version = client.get_model_version(MODEL, "1")
    assert version.tags["audit_verdict"] == "reproduced bit for bit"
    assert version.tags["audit_snapshot_digest"] == version.tags["snapshot_digest"]
    (folder,) = client.list_artifacts(str(version.run_id), "audits")
    audits = client.list_artifacts(str(version.run_id), folder.path)
    names = {Path(item.path).name for item in audits}
    assert names == {"index.html", "audit.json"}


def test_stopped_midway_it_leaves_nothing_behind(leaking: Retrained) -> None:
    root = leaking.root
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
