"""Who becomes champion: the gate after a retrain, a person against it, and the way back.

On a whole small project, `challenged`: version 1 is champion, version 2 gives the same
scores and waits for approval.
"""

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from flows.evidence.keys import FOLDER, make_key
from flows.evidence.ledger import BRANCH, name_file, read_ledger
from flows.evidence.verify import describe, read_lines
from flows.pipeline.lock_and_cache import open_cache, read_lock
from flows.processes.run_git import git
from flows.promotion import rescoring
from flows.promotion.budget import list_looks
from flows.promotion.flow import needs_gate
from flows.snapshots.snapshot import Snapshot, read_tag
from flows.tracking import aliases
from flows.tracking.names import MODEL
from flows.tracking.registry import read_snapshot
from tests.support.markers import search
from tests.support.promoting import copied_version, record, run, tags
from tests.support.receiver import Receiver
from tests.support.small_project import Retrained, forget_looks, mammoflow, store
from tests.support.tampering import database, model_folder

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def root(
    challenged: Retrained, prefect_here: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The project, to promote in; registry and plan are put back afterwards."""
    root = challenged.root
    monkeypatch.chdir(root)
    store(root)
    plan = (root / "plan.yaml").read_text()
    with closing(database(root)) as live, closing(sqlite3.connect(":memory:")) as kept:
        live.backup(kept)
        yield root
        kept.backup(live)
    (root / "plan.yaml").write_text(plan)


@pytest.fixture
def otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 has the weights of version 1; here it counts as if it had not."""
    monkeypatch.setattr(rescoring, "predict_alike", lambda one, other: False)


def last_of_champion() -> aliases.Move:
    """The last move of the champion: the challenger's alias is taken away after it."""
    return [move for move in aliases.read_history() if move.alias == "champion"][-1]


def said_by_tasks(caplog: pytest.LogCaptureFixture) -> str:
    """What the flow's tasks logged: the logs of Prefect's own services are left out."""
    return "\n".join(one.getMessage() for one in caplog.records if "task_runs" in one.name)


def set_policy(root: Path, **changes: object) -> None:
    plan = yaml.safe_load((root / "plan.yaml").read_text())
    plan["policy"].update(changes)
    (root / "plan.yaml").write_text(yaml.safe_dump(plan))
    forget_looks()


def test_a_changed_setting_runs_what_depends_on_it_and_makes_a_challenger(
    challenged: Retrained,
) -> None:
    for stage in ("preprocess", "train_detector", "train_classifier"):
        assert f"Running stage '{stage}'" not in challenged.said
    for stage in ("evaluate", "report"):
        assert f"Running stage '{stage}'" in challenged.said
    client = store(challenged.root)
    assert str(client.get_model_version_by_alias(MODEL, "champion").version) == "1"
    assert str(client.get_model_version_by_alias(MODEL, "challenger").version) == "2"
    assert (
        read_tag(challenged.root, "model/v2").digest != read_tag(challenged.root, "model/v1").digest
    )


def test_nothing_personal_is_found_in_what_retrain_and_gate_left(challenged: Retrained) -> None:
    searched, guilty = search(challenged.root)
    assert guilty == {}
    assert "gate.html" in {path.name for path in searched}


def test_a_retrain_lets_the_gate_judge_and_leaves_the_rest_to_people(root: Path) -> None:
    assert aliases.read_current() == {"champion": 1, "challenger": 2}
    found = tags()
    assert (found["gate_verdict"], found["gate_against"]) == ("promote", "1")
    assert found["gate.auroc"].startswith("passed: auROC ")
    assert json.loads(found["gate_policy"])["approve"] == "manual"
    assert [(m.alias, m.version, m.kind, m.who) for m in aliases.read_history()] == [
        ("challenger", 1, "set", aliases.AUTOMATIC),
        ("champion", 1, "set", aliases.AUTOMATIC),
        ("challenger", 1, "taken away", aliases.AUTOMATIC),
        ("challenger", 2, "set", aliases.AUTOMATIC),
    ]


def test_both_versions_have_one_model_so_there_was_one_look(root: Path) -> None:
    [look] = list_looks(root)
    assert (look.set, look.number, look.error) == (1, 1, 0.025)
    assert [json.loads(tags(version)["gate_look"])["number"] for version in (1, 2)] == [1, 1]
    assert "look 1 at set 1 of test women" in tags()["gate_sentence"]
    assert "1 of 10 looks at this set are taken" in run("looks").output


def test_the_first_version_met_the_floors_before_it_was_champion(root: Path) -> None:
    found = tags(1)
    assert (found["gate_verdict"], found["gate_against"]) == ("promote", "none")
    assert found["gate.sensitivity_at_90_specificity"].startswith("passed: ")
    assert "there was no champion yet" in aliases.read_history()[1].why


def test_a_first_version_that_falls_short_stays_challenger_and_the_next_may_be_the_first(
    root: Path, receiver: Receiver
) -> None:
    client = MlflowClient()
    for name in client.get_registered_model(MODEL).tags:
        client.delete_registered_model_tag(MODEL, name)
    client.delete_registered_model_alias(MODEL, "champion")
    set_policy(root, approve="automatic", sensitivity_floor=1.0)
    result = run("promote", "2")
    assert result.exit_code == 1
    assert "there was no champion yet: sensitivity at 90 % specificity" in result.output
    assert "may not be below 1.000" in result.output
    assert aliases.read_current() == {"challenger": 2}
    assert (tags()["gate_verdict"], tags()["gate_against"]) == ("refuse", "none")
    assert receiver.subjects() == [f"{MODEL} version 2: refused"]
    # The nightly has nothing to add.
    assert not needs_gate(client.get_model_version(MODEL, "2"))
    set_policy(root, approve="manual", sensitivity_floor=0.0)
    assert run("promote", "2").exit_code == 0
    assert aliases.read_current() == {"champion": 2}


def test_the_weights_of_the_champion_are_not_scored_again(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run("promote", "2")
    assert result.exit_code == 0, result.output
    assert "scored" not in said_by_tasks(caplog).replace("nothing was scored again", "")
    assert "byte for byte, so nothing was scored again: all" in tags()["gate_sentence"]


def test_what_a_person_rolled_back_and_its_very_weights_wait_for_a_person(
    root: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Version 1 has the weights of version 2; a third has them, too, under a number of its own."""
    set_policy(root, approve="automatic")
    run("promote", "2")
    run("rollback", "--reason", "recalls too many")
    assert aliases.read_current()["champion"] == 1
    for version in ("2", copied_version(2)):
        result = run("promote", version)
        assert result.exit_code == 1
        assert "was rolled back on" in result.output
        assert "recalls too many" in result.output
        assert "gate: scoring" not in said_by_tasks(caplog)
        assert aliases.read_current()["champion"] == 1
        assert tags(int(version))["gate_verdict"] == "refuse"
    assert "version 2, which has the same weights," in result.output
    assert run("promote", "2", "--reason", "the viewer was wrong").exit_code == 0
    assert aliases.read_current()["champion"] == 2
    assert aliases.list_rolled_back() == {}


def test_the_run_in_mlflow_leads_to_the_one_in_prefect_and_both_say_what_they_are(
    root: Path, prefect_server: dict[str, str]
) -> None:
    client = MlflowClient()
    kept = client.get_run(str(client.get_model_version(MODEL, "2").run_id))
    link = kept.data.tags["prefect_flow_run"]
    assert link.startswith("http://127.0.0.1:")
    [flow_run] = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", link)
    found = httpx.get(f"{prefect_server['PREFECT_API_URL']}/flow_runs/{flow_run}").json()
    assert found["name"] == kept.info.run_name
    assert found["name"] == f"retrain {kept.data.tags['git_commit'][:7]} by hand"
    # Its settings were not the commit's: the watch does not take it for a retrain of the commit.
    assert kept.data.tags["commit_snapshot"] == ""
    assert not [tag for tag in found["tags"] if tag.startswith("snapshot ")]


def test_the_table_and_both_models_predictions_are_with_the_run(
    root: Path, otherwise: None
) -> None:
    assert run("promote", "2").exit_code == 0
    run_id = str(MlflowClient().get_model_version(MODEL, "2").run_id)
    *_, folder = MlflowClient().list_artifacts(run_id, "gates")
    page = mlflow.artifacts.load_text(f"runs:/{run_id}/gate.html")
    assert "version 2 against version 1: promote" in page
    assert "<td>auroc</td>" in page
    table = mlflow.artifacts.load_dict(f"runs:/{run_id}/{folder.path}/decision.json")
    rows = pd.DataFrame(table["data"], columns=table["columns"])
    assert {"auroc", "average_precision", "brier"} <= set(rows["check"])
    assert rows["passed"].all()
    uri = f"runs:/{run_id}/{folder.path}/breasts.csv"
    breasts = pd.read_csv(mlflow.artifacts.download_artifacts(uri))
    # The registered champion, scored again from DICOM, says what the same weights said in the
    # pipeline.
    assert breasts["champion"].to_list() == pytest.approx(breasts["challenger"], abs=1e-5)
    assert breasts["champion"].nunique() > 1
    split = pd.read_csv(root / "outputs/split/split.csv")
    women = set(split.loc[split["split"] == "test", "patient_id"])
    assert set(breasts["patient_id"]) == women


def test_the_console_and_the_receiver_were_told(
    challenged: Retrained, receiver_of_challenger: Receiver
) -> None:
    assert "Gate: version 2 against the champion, version 1" in challenged.said
    assert "approve  mammoflow promote 2 --reason" in challenged.said
    assert "Traceback" not in challenged.said
    assert receiver_of_challenger.subjects() == [
        f"{MODEL} version 2: registered as challenger",
        f"{MODEL} version 2: waits for approval",
    ]


def test_a_person_approves_and_is_on_record(
    root: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    result = run("promote", "2", "--reason", "fewer recalls in the pilot")
    assert result.exit_code == 0, result.output
    assert aliases.read_current() == {"champion": 2, "previous": 1}
    move = last_of_champion()
    assert (move.alias, move.version, move.before) == ("champion", 2, 1)
    assert (move.who, move.why) == ("Tester <tester@localhost>", "fewer recalls in the pilot")
    assert "scored" not in said_by_tasks(caplog)  # the verdict was on record
    assert receiver.subjects() == [f"{MODEL} version 2: promoted"]
    assert "fewer recalls" in receiver.received[0]["body"]
    assert run("audit", "2", "--quick").exit_code == 0


def test_a_version_that_falls_short_is_refused_with_the_reason(
    root: Path,
    otherwise: None,
    receiver: Receiver,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And without the test women's files there is no verdict, until a remote has them."""
    set_policy(root, approve="automatic", sensitivity_floor=1.0)
    split = pd.read_csv(root / "outputs/split/split.csv", dtype=str)
    women = set(split.loc[split["split"] == "test", "patient_id"])
    cache, remote = root / ".dvc/cache", tmp_path / "remote"
    shutil.copytree(cache, remote)
    data = yaml.safe_load((root / "data.dvc").read_text())["outs"][0]["md5"]
    for path, md5 in open_cache(root).listing(data).items():
        if Path(path).parent.name in women:
            (cache / "files/md5" / md5[:2] / md5[2:]).unlink()
    result = run("promote", "2")
    assert result.exit_code == 1
    assert "lacks DICOM files of the test women in data/" in result.output
    assert tags()["gate_verdict"] == "cannot be judged"

    config = root / ".dvc" / "config.local"
    config.write_text(f"[core]\n    remote = there\n['remote \"there\"']\n    url = {remote}\n")
    try:
        result = run("promote", "2")
    finally:
        config.unlink()
    assert result.exit_code == 1, result.output
    assert "fetching data.dvc from DVC's remote" in caplog.text
    assert "scored: 40/40" in caplog.text
    assert "may not be below 1.000" in result.output
    assert aliases.read_current() == {"champion": 1, "challenger": 2}
    assert tags()["gate_verdict"] == "refuse"
    assert tags()["gate.sensitivity_at_90_specificity"].startswith("failed: ")
    model = f"{MODEL} version 2"
    assert receiver.subjects() == [f"{model}: not judged", f"{model}: refused"]


def test_a_retrain_that_was_cut_short_at_the_gate_goes_there_the_next_time(
    root: Path, receiver: Receiver, prefect_server: dict[str, str]
) -> None:
    for name in tags():
        if name.startswith("gate"):
            MlflowClient().delete_model_version_tag(MODEL, "2", name)
    set_policy(root, approve="automatic")
    result = run("retrain")
    assert result.exit_code == 0, result.output
    assert "Nothing changed" in result.output
    assert f"{MODEL} version 2: promoted" in result.output
    assert aliases.read_current() == {"champion": 2, "previous": 1}
    assert last_of_champion().who == aliases.AUTOMATIC
    assert last_of_champion().why.startswith("the gate: ")
    assert "conditions of the policy are met" in last_of_champion().why
    assert receiver.subjects() == [f"{MODEL} version 2: promoted"]
    url = f"{prefect_server['PREFECT_API_URL']}/artifacts/latest/filter"
    pages = httpx.post(url, json={"artifacts": {"key": {"any_": ["gate"]}}}).json()
    rows = json.loads(pages[0]["data"])
    assert "auroc" in [row["condition"] for row in rows]
    assert all(all(row) for row in rows)  # Prefect shows no column without a name


def forge_split(root: Path, version: int) -> str:
    """Make a version's records say that a test woman was trained on; return her id."""
    then = read_snapshot(MlflowClient().get_model_version(MODEL, str(version)))
    cache = open_cache(root)
    hashes = {path: md5 for stage in read_lock(then) for path, md5 in stage.outs.items()}
    old = hashes["outputs/split/split.csv"]
    split = pd.read_csv(cache.path(old), dtype=str)
    woman = split.loc[split["split"] == "test", "patient_id"].iloc[0]
    split.loc[split["patient_id"] == woman, "split"] = "train"
    content = split.to_csv(index=False).encode()
    md5 = hashlib.md5(content).hexdigest()
    cache.path(md5).parent.mkdir(exist_ok=True)
    cache.path(md5).write_bytes(content)
    lock = then.files["dvc.lock"].replace(old, md5)
    record(root, version, Snapshot(then.commit, {**then.files, "dvc.lock": lock}))
    return str(woman)


def test_a_champion_that_knows_a_test_woman_cannot_be_compared(
    root: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_snapshot(MlflowClient().get_model_version(MODEL, "1"))
    woman = forge_split(root, 1)
    try:
        set_policy(root, approve="automatic")
        result = run("promote", "2")
        assert result.exit_code == 1
        assert "version 1 was trained or tuned on 1 of the" in result.output
        assert woman not in result.output  # what the gate says may be signed
        assert "scored" not in said_by_tasks(caplog)
        assert aliases.read_current()["champion"] == 1
        assert tags()["gate_verdict"] == "cannot be judged"
        assert "gate.auroc" not in tags()
        assert receiver.subjects() == [f"{MODEL} version 2: not judged"]
        # A person may know better; what the gate said stays on record.
        assert run("promote", "2", "--reason", "a new split").exit_code == 0
        assert aliases.read_current()["champion"] == 2
        assert "(the gate: cannot be judged)" in receiver.received[-1]["body"]
    finally:
        record(root, 1, before)


def test_a_champion_whose_code_was_changed_in_the_store_is_not_run(
    root: Path, otherwise: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = model_folder(1) / "code/mammo/serving/score_files.py"
    before = path.read_bytes()
    path.write_bytes(before + b"\nPRESENT = True\n")
    try:
        result = run("promote", "2")
    finally:
        path.write_bytes(before)
    assert result.exit_code == 1
    assert "nothing of it was run" in result.output
    assert "other code than the commit: serving/score_files.py" in result.output
    assert "scored:" not in said_by_tasks(caplog)
    assert tags()["gate_verdict"] == "cannot be judged"


@pytest.fixture
def keys(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A key of the builder and one of the approver; what they sign is taken back afterwards."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "private"))
    make_key(root, "server", "builder", None)
    make_key(root, "tester", "approver", None)
    yield
    shutil.rmtree(root / "keys")
    git(root, "update-ref", "-d", f"refs/heads/{BRANCH}")
    for number in (1, 2):
        run_id = MlflowClient().get_model_version(MODEL, str(number)).run_id
        MlflowClient().log_text(str(run_id), "", name_file(number))


@pytest.mark.usefixtures("keys")
def test_what_the_gate_and_people_decide_is_signed_where_there_are_keys(root: Path) -> None:
    assert run("evidence", "sign", "2").exit_code == 0
    set_policy(root, approve="automatic", sensitivity_floor=1.0)
    assert run("promote", "2").exit_code == 1
    assert run("promote", "2", "--reason", "agreed").exit_code == 0
    assert run("rollback", "--reason", "recalls too many").exit_code == 0
    lines, faults = read_lines(read_ledger(root))
    assert faults == []
    assert [describe(line) for line in lines] == [
        "provenance of version 2",
        "policy",
        "evaluation of version 2",
        "refusal of version 2",
        "approval of version 2",
        "rollback of version 1",
    ]
    assert lines[4].predicate["evaluation"] == lines[2].digest
    assert [line.predicate["to"] for line in lines[3:]] == [1, 2, 1]
    assert "Tester <tester@localhost>" in lines[4].predicate["who"]
    verified = run("verify", "2")
    assert verified.exit_code == 0, verified.output
    assert run("verify", "1").exit_code == 2  # nobody signed how it was made


@pytest.mark.usefixtures("keys")
def test_a_retrain_signs_the_policy_first_then_what_it_made_and_what_the_gate_found(
    root: Path, tmp_path: Path, prefect_server: dict[str, str]
) -> None:
    forget_looks()  # the model had been looked at before there was a key, so before any policy
    signs = {**prefect_server, FOLDER: str(tmp_path / "private")}
    try:
        said = mammoflow(root, "retrain", "--force", extra_env=signs).stdout
    finally:
        git(root, "tag", "-d", "model/v3")
    assert "evidence signed: mammoflow verify 3" in said
    lines, _ = read_lines(read_ledger(root))
    assert [describe(line) for line in lines[:3]] == [
        "policy",
        "provenance of version 3",
        "evaluation of version 3",
    ]
    assert lines[0].digest == lines[1].policy == lines[2].policy
    verified = run("verify", "3")
    assert verified.exit_code == 0, verified.output
