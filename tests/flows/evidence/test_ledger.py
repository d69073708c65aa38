"""The ledger in MLflow and git: what is written where, and what shows when a copy is changed."""

import json
import shutil
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import compile as compile_file

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from flows.cli.app import app
from flows.evidence import signing
from flows.evidence.export import export, verify_version
from flows.evidence.keys import FOLDER, find_owner
from flows.evidence.ledger import (
    BRANCH,
    HEAD,
    POLICIES,
    name_file,
    publish_ledger,
    read_ledger,
    seal,
)
from flows.evidence.verify import PROVENANCE, read_line
from flows.processes.run_git import git, read_file_at, succeeds
from flows.tracking.names import MODEL
from flows.tracking.registry import get_version, read_artifact, read_run_id
from mammo.assurance.plan import load_plan
from mammo.assurance.promotion_rule import check_floors
from mammo.base.errors import UserError
from tests.support.judged import plan, women
from tests.support.signed_project import look, read_payload, register, rewrite_records


def own_lines(version: int) -> list[str]:
    text = read_artifact(read_run_id(get_version(version)), name_file(version))
    assert text is not None
    return text.splitlines()


def keep_only(version: int, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    MlflowClient().log_text(read_run_id(get_version(version)), text, name_file(version))


def verify(version: int) -> Result:
    result = CliRunner().invoke(app, ["verify", str(version)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_a_version_holds_its_lines_and_the_branch_holds_all(root: Path) -> None:
    assert [read_line(raw).number for raw in read_ledger(root)] == list(range(1, 12))
    names = git(root, "ls-tree", "-r", "--name-only", BRANCH).splitlines()
    assert names == [name_file(1), name_file(2), POLICIES]
    for number in (1, 2):
        assert read_file_at(root, BRANCH, name_file(number)).splitlines() == own_lines(number)
    assert [read_line(raw).number for raw in own_lines(1)] == [1, 2, 3, 4, 11]
    assert [read_line(raw).number for raw in own_lines(2)] == [5, 6, 7, 8, 9, 10]
    assert succeeds(root, "diff", "--quiet", "HEAD")  # the folder stays as it is
    for number in (1, 2):
        result = verify(number)
        assert result.exit_code == 0, result.output
        assert result.output.endswith(f"The signed evidence of version {number} holds.\n")


def test_the_provenance_names_what_the_version_was_made_from(root: Path) -> None:
    said = read_payload(own_lines(2)[1])
    assert said["predicateType"] == PROVENANCE
    assert {part["name"] for part in said["subject"]} == {
        "MLmodel",
        "artifacts/predictor/weights.safetensors",
        "code/mammo/science.py",
    }
    definition, details = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    named = {part["name"]: part["digest"] for part in definition["resolvedDependencies"]}
    assert named["commit"] == {"gitCommit": git(root, "rev-parse", "main")}
    assert named["data"] == {"dvcDir": "d" * 32}
    assert named["weights/start.safetensors"] == {"md5": "e" * 32}
    files = {"params.yaml", "plan.yaml", "data.dvc", "dvc.lock", "requirements.lock"}
    assert files == {name for name, digest in named.items() if "sha256" in digest}
    assert definition["externalParameters"]["params"]["seed"] == 20
    assert "python" in definition["internalParameters"]["environment"]
    made = {part["name"]: part["digest"] for part in details["byproducts"]}
    assert made["outputs/split/split.csv"] == {"md5": "a" * 32}
    assert made["outputs/train_classifier"] == {"dvcDir": "b" * 32}


def test_the_evaluation_names_each_condition_with_its_numbers(root: Path) -> None:
    said = read_payload(own_lines(2)[2])["predicate"]
    assert said["verdict"] == "refuse"
    assert (said["champion"], said["look"]["number"]) == (1, 2)
    assert said["cases"] == {"women": 30, "breasts": 60, "positives": 10}
    auroc = next(x for x in said["conditions"] if (x["check"], x["group"]) == ("auroc", None))
    assert auroc["bound"] < auroc["limit"] == 0
    assert not auroc["passed"]
    groups = {x["group"]: (x["breasts"], x["positives"]) for x in said["conditions"]}
    assert groups["density A"] == (30, 5)


def test_a_decision_names_who_why_and_from_where_to_where(root: Path) -> None:
    approval = read_payload(own_lines(2)[4])["predicate"]
    kept = ("kind", "who", "why", "from", "to")
    assert [approval[key] for key in kept] == [
        "approval",
        "Anna Tester <anna@localhost>",
        "agreed",
        1,
        2,
    ]
    assert approval["evaluation"] == read_line(own_lines(2)[2]).digest
    back = read_payload(own_lines(1)[4])["predicate"]
    assert [back[key] for key in kept[2:]] == ["recalls too many", 2, 1]


def test_the_same_statement_gives_the_same_bytes(root: Path) -> None:
    owner = find_owner(root, "builder")
    assert owner is not None
    said = {"a": 0.1, "ö": [1, None]}
    once, again = (seal(owner, "promotion", {"b": "1", "a": "2"}, said) for _ in range(2))
    assert once == again


def test_nothing_secret_and_no_path_is_in_what_is_signed(root: Path, signed: Path) -> None:
    private = [path.read_text().splitlines()[1] for path in (signed / "private").iterdir()]
    assert len(private) == 3
    texts = [json.dumps(read_payload(raw), ensure_ascii=False) for raw in read_ledger(root)]
    texts += [path.read_text() for path in (signed / "export" / "keys").iterdir()]
    texts.append((signed / "export" / "manifest.json").read_text())
    for secret in (*private, str(signed), str(root), str(Path.home()), "/site-packages"):
        assert not [text for text in texts if secret in text]


def test_registry_and_git_rewritten_together_to_another_model_are_found(root: Path) -> None:
    """The cache holds what the new dvc.lock names, so nothing contradicts anything but the line."""
    path = root / "dvc.lock"
    path.write_text(path.read_text().replace("b" * 32, "9" * 32))
    rewrite_records(root, get_version(2), "another model")
    result = verify(2)
    assert result.exit_code == 1
    made = "line 6 (provenance of version 2)"
    assert f"the model has other bytes than {made} names: artifacts/predictor" in result.output
    assert f"dvc.lock is not the file that {made} names" in result.output


def test_a_forger_who_signs_anew_with_another_key_is_found(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Branch, artifacts and head are rewritten, too: only the key is another's."""
    keys = root / "keys"
    shutil.copytree(keys, tmp_path / "kept")
    git(root, "update-ref", "-d", f"refs/heads/{BRANCH}")
    MlflowClient().delete_registered_model_tag(MODEL, HEAD)
    for number in (1, 2):
        keep_only(number, [])
    shutil.rmtree(keys)
    monkeypatch.setenv(FOLDER, str(tmp_path / "forger"))
    made = CliRunner().invoke(app, ["keys", "new", "server", "--role", "builder"])
    assert made.exit_code == 0, made.output
    signing.sign_plan(root, plan())
    signing.sign_version(root, get_version(2))
    shutil.rmtree(keys)
    shutil.copytree(tmp_path / "kept", keys)  # the auditor's own clone
    result = verify(2)
    assert result.exit_code == 1
    assert "line 2 (provenance of version 2) is signed by the key " in result.output
    assert "which is not in keys/" in result.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "lacks line 10 (audit verdict of version 2)"),
        (lambda lines: [*lines, lines[0]], "has line 5 (policy) twice"),
        (lambda lines: lines[::-1], "were put in another order"),
    ],
)
def test_a_copy_in_mlflow_that_differs_from_gits_is_found(
    root: Path, change: object, said: str
) -> None:
    assert callable(change)
    keep_only(2, change(own_lines(2)))
    result = verify(2)
    assert result.exit_code == 1
    assert f"attestations/v2.intoto.jsonl {said}" in result.output
    assert verify(1).exit_code == 0  # which has all of its own


def test_a_last_line_that_is_gone_everywhere_is_missed_by_the_registry(root: Path) -> None:
    before = git(root, "rev-parse", f"{BRANCH}~1")
    git(root, "update-ref", f"refs/heads/{BRANCH}", before)
    keep_only(1, own_lines(1)[:-1])
    result = verify(1)
    assert result.exit_code == 1
    assert "line 11, the last that the registry names, was taken out" in result.output


def test_a_clone_without_the_branch_finds_every_line_in_mlflow(root: Path) -> None:
    before = read_ledger(root)
    git(root, "update-ref", "-d", f"refs/heads/{BRANCH}")
    assert read_ledger(root) == before
    assert verify(2).exit_code == 0
    # And goes on where the others stopped.
    line = signing.sign_plan(root, plan(sensitivity_floor=0.9))
    assert line is not None
    assert (line.number, line.previous) == (12, read_line(before[-1]).digest)


def test_a_policy_that_is_in_force_is_not_signed_again(root: Path) -> None:
    line = signing.sign_plan(root, plan())
    assert line is not None
    assert line.number == 5
    assert len(read_ledger(root)) == 11


def test_a_version_that_is_judged_again_is_judged_by_the_policy_of_its_time(root: Path) -> None:
    """And by another one it shows that the look came first."""
    first = load_plan(root / "plan.yaml")
    decision = check_floors(women(30, seed=1), first.policy)
    again = signing.sign_evaluation(root, get_version(1), 1, first, decision, "promote", look(1))
    assert again is not None
    assert (again.number, again.policy) == (12, read_line(own_lines(1)[0]).digest)
    assert verify(1).exit_code == 0
    other = plan(sensitivity_floor=0.5)
    signing.sign_evaluation(root, get_version(1), 1, other, decision, "promote", look(1))
    result = verify(1)
    assert result.exit_code == 1
    assert "line 13 (policy) was signed after line 2 (provenance of version 1)" in result.output


def test_a_version_that_was_registered_unsigned_is_signed_later_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(FOLDER, str(tmp_path / "nobody"))
        version = register(root, "third")
        assert signing.sign_version(root, version) is None
        unsigned = verify(3)
        assert unsigned.exit_code == 2
        assert (
            "note: version 3 has no signed provenance: `mammoflow evidence sign 3`"
            in unsigned.output
        )
        assert unsigned.output.endswith("Version 3 is unsigned.\n")
        refused = CliRunner().invoke(app, ["evidence", "sign", "3"])
        assert refused.exit_code == 1
        assert "there is no key of the role builder" in refused.output
    result = CliRunner().invoke(app, ["evidence", "sign", "3"])
    assert result.exit_code == 0, result.output
    found = verify(3)
    assert found.exit_code == 0
    assert "note: line 12 (provenance of version 3) was signed later, on 20" in found.output
    again = CliRunner().invoke(app, ["evidence", "sign", "3"])
    assert again.exit_code == 1
    assert "version 3 has a signed provenance already" in again.output


def test_an_export_needs_a_folder_of_its_own(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "e"
    made = CliRunner().invoke(app, ["evidence", "export", "2", str(target)])
    assert made.exit_code == 0, made.output
    again = CliRunner().invoke(app, ["evidence", "export", "2", str(target)])
    assert again.exit_code == 2
    assert "there is something in it already" in again.output
    assert (target / "attestations" / "v2.intoto.jsonl").is_file()


def test_the_branch_is_published_and_joins_what_two_clones_signed(
    root: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "init", "-q", "--bare", str(bare))
    git(root, "remote", "add", "origin", str(bare))
    assert publish_ledger(root) is None
    git(tmp_path, "clone", "-q", "-b", "main", str(root), "other")
    other = tmp_path / "other"
    git(other, "remote", "set-url", "origin", str(bare))
    git(other, "config", "user.name", "Other")
    git(other, "config", "user.email", "other@localhost")
    (other / ".dvc" / "tmp").mkdir()
    assert signing.sign_plan(other, plan(sensitivity_floor=0.9)) is not None
    assert publish_ledger(other) is None
    assert signing.sign_plan(root, plan(sensitivity_floor=0.8)) is not None
    assert publish_ledger(root) is None
    there = read_file_at(bare, f"refs/heads/{BRANCH}", POLICIES).splitlines()
    assert [read_line(raw).number for raw in there] == [1, 5, 12, 13]
    assert [read_line(raw).number for raw in read_ledger(root)] == list(range(1, 14))
    assert verify_version(root, get_version(2), ()).status == 0


def test_nothing_is_signed_after_a_line_that_nobody_has(root: Path) -> None:
    """Two lines with one number could never be put right."""
    MlflowClient().set_registered_model_tag(MODEL, HEAD, f"12 {'0' * 64}")
    with pytest.raises(UserError, match="line 12 is the last of the signed evidence"):
        signing.sign_plan(root, plan(sensitivity_floor=0.9))
    MlflowClient().delete_registered_model_tag(MODEL, HEAD)
    assert signing.sign_plan(root, plan(sensitivity_floor=0.9)) is not None


def test_a_remote_that_takes_nothing_is_said_and_stops_nothing(root: Path, tmp_path: Path) -> None:
    git(root, "remote", "add", "origin", str(tmp_path / "gone"))
    said = publish_ledger(root)
    assert said is not None
    assert said.startswith("the signed evidence is not on origin: git ")


def test_a_key_that_cannot_be_used_is_said_before_anything_is_signed(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "private" / "server.pem").chmod(0o644)
    with pytest.raises(UserError, match="others may read this private key"):
        signing.sign_plan(root, load_plan(root / "plan.yaml"))
    assert len(read_ledger(root)) == 11


def test_registry_and_git_rewritten_to_another_commit_of_the_same_model_are_found(
    root: Path,
) -> None:
    """Its files are the signed ones; only the code that it is said to come of is another."""
    version, weights = get_version(2), "second"
    assert verify_version(root, version, ()).wrong == []
    signed = git(root, "rev-parse", "HEAD")
    (root / "more.py").write_text("print(1)\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "other code")
    rewrite_records(root, version, weights)
    found = verify_version(root, get_version(2), ()).wrong
    for where in ("snapshot/snapshot.json", "the registry's tags of version 2", "the tag model/v2"):
        assert any(said.startswith(where) and signed in said for said in found), found


def test_a_load_that_left_compiled_code_in_the_registry_is_found_and_not_exported(
    root: Path, tmp_path: Path
) -> None:
    run, name = str(get_version(2).run_id), f"code/mammo/{cache_from_source('science.py')}"
    source = tmp_path / "science.py"
    source.write_text("ANSWER = 42\n")  # as it is in the model
    compiled = Path(str(compile_file(str(source))))
    MlflowClient().log_artifact(run, str(compiled), f"model/{Path(name).parent}")
    assert verify_version(root, get_version(2), ()).wrong == []
    source.write_text("ANSWER = 666\n")
    compile_file(str(source), cfile=str(compiled))
    MlflowClient().log_artifact(run, str(compiled), f"model/{Path(name).parent}")
    [said] = verify_version(root, get_version(2), ()).wrong
    assert said.startswith(f"the model holds compiled code that nobody signed: {name}: delete it")
    export(root, get_version(2), tmp_path / "export")
    assert not list((tmp_path / "export").rglob("*.pyc"))


def test_a_champion_that_nobody_signed_is_noted(root: Path) -> None:
    MlflowClient().set_registered_model_alias(MODEL, "champion", "2")
    notes = verify_version(root, get_version(2), ()).notes
    assert any(
        "the champion is version 2 in the registry, and version 1 by line 11" in x for x in notes
    )
