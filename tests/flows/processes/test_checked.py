"""What comes from a server is what it should be, or it is refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlflow.entities.model_registry import ModelVersion
from prefect.logging import disable_run_logger
from pydantic import ValidationError

from flows.audit.account import _read_author
from flows.pipeline.lock_and_cache import Cache, read_data_out, read_lock, require_form
from flows.processes.checked import (
    Commit,
    Md5,
    RelativePath,
    RunId,
    escape_control_characters,
    locate_inside,
    validate,
)
from flows.processes.run_git import git
from flows.remote import worker_clone
from flows.remote.remote_stage import StageResult
from flows.remote.stage_worker import run_requested_stage
from flows.snapshots.snapshot import FILES, Snapshot, materialise, read_commit, write_tag
from flows.tracking.registry import read_run_id
from mammo.base.errors import UserError
from tests.imports import ROOT

HEX = "0123456789abcdef0123456789abcdef"
COMMIT = "0" * 40
EVIL_PATHS = [
    "../x",
    "a/../../x",
    "/etc/x",
    "~/x",
    "-x",
    "--output=x",
    "",
    ".",
    "..",
    "a\0b",
    "a\\b",
]
EVIL_COMMITS = [
    "-x",
    "--upload-pack=touch x",
    "HEAD",
    "main",
    "0" * 39,
    f"{COMMIT}\n",
    "",
    "A" * 40,
]
EVIL_HASHES = ["..", "../../../x", f"{HEX}/x", f"{HEX}.dir.dir", "", "A" * 32]

words = st.text(max_size=20) | st.sampled_from([*EVIL_PATHS, *FILES, "outside", COMMIT])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("commit", [*EVIL_COMMITS, None, 7, ["x"]])
def test_a_commit_is_forty_hex_digits(commit: object) -> None:
    with pytest.raises(UserError, match="no snapshot: commit"):
        Snapshot.from_json(json.dumps({"commit": commit, "files": {}}), "what came")
    with pytest.raises(UserError, match="the commit is "):
        validate(Commit, commit, "the commit")


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", "1", "{", '{"commit": "' + COMMIT + '"}',
        '{"commit": "' + COMMIT + '", "files": {"params.yaml": 1}}',
        '{"commit": "' + COMMIT + '", "files": {"params.yaml": "\\ud800"}}',
        '{"commit": "' + COMMIT + '", "files": {"../x": ""}}',
        '{"commit": "' + COMMIT + '", "files": {"/tmp/x": ""}}',
        '{"commit": "' + COMMIT + '", "files": {"dvc.yaml": ""}}',
        '{"commit": "' + COMMIT + '", "files": {}, "more": 1}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_snapshot_is_one_sentence_that_names_it(text: str) -> None:
    with pytest.raises(UserError, match=r"\Asnapshot\.json of version 3 is no snapshot: "):
        Snapshot.from_json(text, "snapshot.json of version 3")


def _is_good(files: Any) -> bool:
    known = isinstance(files, dict) and files.keys() <= {*FILES}
    return known and all(isinstance(text, str) for text in files.values())


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    files=st.dictionaries(words, words, max_size=4) | anything,
    rest=st.dictionaries(words, anything, max_size=1),
    direct=st.booleans(),
)
@example(files={"../../../../outside": "x"}, rest={}, direct=True)
@example(files={"../../../../outside": "x"}, rest={}, direct=False)
@example(files={"params.yaml": "x"}, rest={}, direct=False)
def test_whatever_json_comes_nothing_is_written_outside_the_folder(
    project: Path,
    files: Any,
    rest: dict[str, Any],
    direct: bool,
) -> None:
    def around() -> set[Path]:
        return {
            path
            for path in project.parent.rglob("*")
            if not path.is_relative_to(project / ".git")
            and not path.is_relative_to(project / ".dvc" / "tmp")
        }

    content = {**rest, "commit": git(project, "rev-parse", "HEAD"), "files": files}
    before, written = around(), None
    try:
        if direct and isinstance(files, dict):
            snapshot = Snapshot(content["commit"], files)
        else:
            snapshot = Snapshot.from_json(json.dumps(content))
        with materialise(project, snapshot) as folder:
            written = {path.name for path in folder.iterdir()}
            assert around() == before
    except UserError:
        assert rest or not _is_good(files)
    else:
        assert written is not None
        assert written - {"mammo", ".dvc", ".git", ".dvcignore"} == set(files)
    assert around() == before
    assert not (project.parent / "outside").exists()


def test_a_commit_whose_dvc_folder_is_a_link_is_not_written_into(
    project: Path,
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = git(project, "hash-object", "-w", "--stdin", stdin=str(elsewhere))
    git(project, "rm", "-rq", "--cached", ".dvc")
    git(project, "update-index", "--add", "--cacheinfo", f"120000,{link},.dvc")
    tree = git(project, "write-tree")
    git(project, "read-tree", "HEAD")
    commit = git(project, "commit-tree", tree, stdin="a link\n")
    with (
        pytest.raises(UserError, match=r"a link for \.dvc"),
        materialise(project, Snapshot(commit, {})),
    ):
        raise AssertionError("materialised")
    assert list(elsewhere.iterdir()) == []


def test_no_tag_is_made_of_what_is_no_snapshot(project: Path) -> None:
    with pytest.raises(UserError, match="is no snapshot"):
        write_tag(project, Snapshot("--help", {}), "model/v1", "made")


def lock(path: str = "outputs/x", md5: str = HEX, name: str = "train") -> str:
    out = {"path": path, "md5": md5}
    return json.dumps({"schema": "2.0", "stages": {name: {"cmd": "x", "outs": [out]}}})


@pytest.mark.parametrize(
    "text",
    [
        *(lock(path=path) for path in EVIL_PATHS),
        *(lock(md5=md5) for md5 in EVIL_HASHES),
        *(lock(name=name) for name in ("-x", "--force", "a/b", "", "a b")),
        "stages: 1", "a: [", "!!python/object/apply:os.system ['true']", "\0",
    ],
)  # fmt: skip
def test_a_lock_that_leads_elsewhere_is_not_what_dvc_writes(text: str) -> None:
    snapshot = Snapshot(COMMIT, {"dvc.lock": text})
    with pytest.raises(UserError, match=r"dvc\.lock: not what DVC writes"):
        read_lock(snapshot)
    with pytest.raises(UserError, match=r"dvc\.lock: not what DVC writes"):
        require_form(Path(), snapshot)


@pytest.mark.parametrize(
    "content",
    [
        *({"outs": [{"path": path, "md5": f"{HEX}.dir"}]} for path in EVIL_PATHS),
        {"outs": [{"path": "data", "md5": "../../x"}]},
        {"outs": [{"path": "data", "md5": HEX}], "wdir": ".."},
        {"outs": []},
        {"outs": [{"path": "data", "md5": HEX}, {"path": "more", "md5": HEX}]},
        {},
        [],
    ],
)
def test_data_that_lead_elsewhere_are_not_what_dvc_writes(content: object) -> None:
    snapshot = Snapshot(COMMIT, {"data.dvc": json.dumps(content)})
    with pytest.raises(UserError, match=r"data\.dvc: not what DVC writes"):
        read_data_out(snapshot)
    with pytest.raises(UserError, match=r"data\.dvc: not what DVC writes"):
        require_form(Path(), snapshot)


@pytest.mark.parametrize(
    "beyond",
    [
        {"deps": [{"path": "data", "repo": {"url": "https://evil.example/x.git"}}]},
        {"deps": [{"path": "https://evil.example/x", "md5": HEX}]},
        {"frozen": True},
        {"outs": [{"path": "data", "md5": f"{HEX}.dir", "remote": "other"}]},
        {"outs": [{"path": "data", "md5": f"{HEX}.dir", "cloud": {"other": {"etag": "1"}}}]},
        {"outs": [{"path": "data", "md5": f"{HEX}.dir", "files": [{"relpath": "a"}]}]},
    ],
)
def test_a_source_of_the_data_is_taken_from_the_commit_alone(
    project: Path,
    beyond: dict[str, object],
) -> None:
    text = yaml.safe_dump({"outs": [{"path": "data", "md5": f"{HEX}.dir"}], **beyond})
    (project / "data.dvc").write_text(text)
    git(project, "add", "data.dvc")
    git(project, "commit", "-qm", "data from elsewhere")
    commit = git(project, "rev-parse", "HEAD")
    owned = Snapshot(commit, {"data.dvc": read_commit(project, commit).files["data.dvc"]})
    require_form(project, owned)
    for other in (text + "# handed over\n", text.replace(HEX, HEX[::-1])):
        with pytest.raises(UserError, match=r"not the commit's own: not what DVC writes"):
            require_form(project, Snapshot(commit, {"data.dvc": other}))


def test_data_that_were_added_and_not_committed_are_taken(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    out = {"path": "data", "md5": f"{HEX}.dir", "size": 5, "nfiles": 1, "hash": "md5"}
    text = yaml.safe_dump({"outs": [out]})
    require_form(project, Snapshot(commit, {"data.dvc": text}))


def test_what_dvc_writes_is_read() -> None:
    files = {name: (ROOT / name).read_text() for name in ("dvc.lock", "data.dvc")}
    require_form(ROOT, Snapshot(git(ROOT, "rev-parse", "HEAD"), files))
    assert read_data_out(Snapshot(COMMIT, files))[0] == "data"
    assert len(read_lock(Snapshot(COMMIT, files))) == 9


@pytest.mark.parametrize(
    "entries",
    [
        [{"relpath": "../x", "md5": HEX}],
        [{"relpath": "/x", "md5": HEX}],
        [{"relpath": "x", "md5": "../../x"}],
        [{"relpath": 1, "md5": HEX}],
        [{"md5": HEX}],
        {},
        7,
    ],
)
def test_a_list_in_the_cache_that_leads_elsewhere_is_named(tmp_path: Path, entries: object) -> None:
    cache, md5 = Cache(tmp_path), f"{HEX}.dir"
    cache.path(md5).parent.mkdir()
    cache.path(md5).write_text(json.dumps(entries))
    if entries == {}:
        assert cache.listing(md5) == {}
        return
    with pytest.raises(UserError, match=f"the list {HEX}.dir in DVC's cache"):
        cache.listing(md5)


@given(st.text(max_size=30) | st.sampled_from(EVIL_PATHS))
def test_a_path_that_is_let_in_stays_in_its_folder(path: str) -> None:
    folder = Path("/somewhere/folder")
    try:
        found = validate(RelativePath, path, "the path")
    except UserError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    assert (folder / found).resolve().is_relative_to(folder)
    assert not found.startswith("-")


def test_a_link_that_leads_out_of_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "code").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of its folder"):
        locate_inside(tmp_path / "model", "code", "the code")


@pytest.mark.parametrize("run", ["", "../x", "a/../../x", "-x", "a b", None, "x" * 300])
def test_a_run_that_is_none_names_its_version(run: str | None) -> None:
    with pytest.raises(UserError, match="the run of version 3 in MLflow is "):
        read_run_id(ModelVersion("m", "3", 0, run_id=run))
    assert validate(RunId, HEX, "the run") == HEX
    assert validate(Md5, f"{HEX}.dir", "the hash") == f"{HEX}.dir"


def test_a_commit_that_a_tag_names_is_no_option_of_git(project: Path) -> None:
    assert _read_author(project, f"--output={project / 'written'}") == (None, None)
    assert not (project / "written").exists()
    author, date = _read_author(project, git(project, "rev-parse", "HEAD"))
    assert author == "Jörg Tester"
    assert date


@pytest.mark.parametrize(
    "message",
    [
        "", "done", "{}", '{"fate": "rm -rf"}', '{"path": "/etc"}',
        '{"arithmetic": {"matrix product": "\\u001b[2J"}}',
        '{"entry": {"cmd": "x", "outs": [{"path": "../x", "md5": "' + HEX + '"}]}}',
        '{"entry": {"cmd": "x", "outs": [{"path": "x", "md5": "../x"}]}}',
        '{"entry": {"cmd": "x", "outs": [], "remote": "ssh://elsewhere"}}',
    ],
)  # fmt: skip
def test_a_workers_last_words_are_a_fate_an_entry_and_hashes(message: str) -> None:
    known = {"fate": "ran", "arithmetic": {}, "entry": {"cmd": "x", "outs": []}}
    StageResult.model_validate(known)
    if message.startswith('{"'):
        message = json.dumps(known | json.loads(message))
    with pytest.raises(ValidationError):
        StageResult.model_validate_json(message)


def test_a_worker_says_what_is_wrong_with_what_it_is_asked(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (project / "dvc.yaml").write_text("stages:\n  base:\n    cmd: touch x\n    outs: [x]\n")
    for name in ("dvc.lock", "data.dvc"):
        (project / name).unlink()
    git(project, "add", "-A")
    git(project, "commit", "-qm", "stages")
    monkeypatch.chdir(project)
    head = git(project, "rev-parse", "HEAD")
    cases = {
        ("base", "{}"): "the run's parameter `snapshot` is no snapshot: commit: Field required",
        ("base", Snapshot(head, {"dvc.lock": lock(md5="../x")}).to_json()): "not what DVC writes",
        ("--help", Snapshot(head, {}).to_json()): "has no stage '--help', only base",
    }
    for (stage, snapshot), sentence in cases.items():
        with disable_run_logger():
            state = run_requested_stage.fn(stage, snapshot)
        assert state.is_failed()
        assert sentence in str(state.message)


def test_a_run_may_not_ask_for_what_is_no_commit(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(worker_clone.CLONE, str(project))
    monkeypatch.chdir(project)
    asked = {"commit": "--upload-pack=touch x"}
    monkeypatch.setattr("prefect.runtime.flow_run.get_parameters", lambda: asked)
    with pytest.raises(UserError, match="the run's parameter `commit` is '--upload-pack"):
        worker_clone.enter()


def test_control_characters_are_spelled_out() -> None:
    assert escape_control_characters("a\tb\nc\x1b[2J\x9b\u202e") == "a\tb\nc\\x1b[2J\\x9b\\u202e"
