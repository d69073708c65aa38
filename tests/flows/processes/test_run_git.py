"""What a person has configured for themselves neither changes nor hangs what the machine does."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.processes import run_git
from flows.processes.run_git import (
    fetch,
    git,
    has_ref,
    is_ancestor,
    list_changes,
    list_paths,
    read_file_at,
    read_remote_refs,
)
from flows.remote.worker_clone import fast_forward
from flows.snapshots.snapshot import (
    FILES,
    capture,
    find_uncommitted_code,
    materialise,
    read_tag,
    write_tag,
)
from flows.tracking.aliases import identify_person
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.processes import gone

HOOKS = (
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "pre-auto-gc",
    "reference-transaction",
)
HOSTILE = """
[commit]
    gpgSign = true
    template = {folder}/template
[tag]
    gpgSign = true
    forceSignAnnotated = true
    sort = -version:refname
[gpg]
    program = {folder}/waits
[core]
    hooksPath = {folder}/hooks
    editor = {folder}/waits
    pager = {folder}/waits
    fsmonitor = {folder}/waits
    attributesFile = {folder}/attributes
    excludesFile = {folder}/ignored
    autocrlf = true
    safecrlf = true
    eol = crlf
    quotePath = true
    sparseCheckout = true
[filter "shout"]
    smudge = tr a-z A-Z
    clean = {folder}/waits
[sequence]
    editor = {folder}/waits
[pager]
    diff = {folder}/waits
    tag = {folder}/waits
[alias]
    diff-tree = !{folder}/waits
    tag = !{folder}/waits
[color]
    ui = always
[column]
    ui = always
[diff]
    external = {folder}/waits
    noprefix = true
    renames = copies
    relative = true
[log]
    showSignature = true
[fetch]
    prune = true
    pruneTags = true
[remote "origin"]
    prune = true
    pruneTags = true
[branch "main"]
    mergeOptions = --squash
[merge]
    ff = false
    verifySignatures = true
    autoStash = true
[status]
    short = true
    branch = true
    showUntrackedFiles = no
[i18n]
    logOutputEncoding = latin1
    commitEncoding = latin1
[init]
    templateDir = {folder}/template.d
[push]
    gpgSign = true
"""
STRAY = {
    "GIT_DIR": "/nowhere",
    "GIT_WORK_TREE": "/nowhere",
    "GIT_INDEX_FILE": "/nowhere/index",
    "GIT_EDITOR": "sleep 1000",
    "GIT_PAGER": "sleep 1000",
    "GIT_EXTERNAL_DIFF": "sleep 1000",
    "GIT_AUTHOR_DATE": "no date",
    "GIT_CONFIG_PARAMETERS": "'tag.gpgsign=true'",
    "LC_ALL": "de_DE.UTF-8",
    "LANGUAGE": "de",
}


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture(params=["for the person", "for the repository"])
def hostile(
    request: pytest.FixtureRequest, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The project's clone, and around it all that a person may have set."""
    folder, clone = tmp_path / "person", tmp_path / "clone"
    executable(folder / "waits", "touch $0.called; sleep 1000")
    for hook in HOOKS:
        executable(folder / "hooks" / hook, f"touch {folder}/waits.called; exit 1")
    (folder / "attributes").write_text("* text eol=crlf filter=shout\n")
    (folder / "ignored").write_text("*.py\n")
    settings = HOSTILE.format(folder=folder)
    if request.param == "for the person":
        (folder / ".gitconfig").write_text(settings)
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    else:
        with (clone / ".git" / "config").open("a") as file:
            file.write(settings)
    for key, value in {**STRAY, "GIT_SEQUENCE_EDITOR": "sleep 1000"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(run_git, "PATIENCE", 60.0)
    with (clone / ".git" / "config").open("a") as file:
        file.write("[user]\n    name = Jörg Tester\n    email = tester@localhost\n")
    yield clone
    assert not (folder / "waits.called").exists()


def test_a_snapshot_is_captured_tagged_and_materialised_as_for_anybody_else(
    hostile: Path, project: Path
) -> None:
    snapshot = capture(hostile)
    assert snapshot.digest == capture(project).digest
    commit = write_tag(hostile, snapshot, "model/v1", "version 1")
    assert read_tag(hostile, "model/v1") == snapshot
    assert git(hostile, "rev-parse", "refs/tags/model/v1") == commit  # no tag object: not signed
    assert "gpgsig" not in git(hostile, "cat-file", "commit", commit)
    assert list_changes(hostile, snapshot.commit, commit) == []
    with materialise(hostile, snapshot) as folder:
        for path in ("mammo/science.py", *FILES):
            assert (folder / path).read_bytes() == (project / path).read_bytes()
        assert capture(folder) == snapshot
    assert identify_person(hostile) == "Jörg Tester <tester@localhost>"


def test_code_that_only_the_person_ignores_is_seen(hostile: Path) -> None:
    (hostile / "mammo" / "hidden.py").write_text("ANSWER = 41\n")
    (hostile / ".git" / "info" / "exclude").write_text("hidden.py\n")
    assert find_uncommitted_code(hostile) == ["mammo/hidden.py"]
    (hostile / "mammo" / "hidden.py").unlink()
    git(hostile, "update-index", "--assume-unchanged", "mammo/science.py")
    (hostile / "mammo" / "science.py").write_text("ANSWER = 41\n")
    assert find_uncommitted_code(hostile) == ["mammo/science.py"]


def test_what_git_changes_on_its_way_is_no_commit_of_ours(project: Path) -> None:
    git(project, "config", "filter.forge.smudge", "sed s/42/41/")
    git(project, "config", "filter.forge.clean", "sed s/41/42/")
    snapshot = capture(project)
    (project / ".git" / "info" / "attributes").write_text("*.py filter=forge\n")
    with (
        pytest.raises(
            UserError, match=r"mammo/science\.py with other bytes than .*\.git/info/attributes"
        ),
        materialise(project, snapshot),
    ):
        pass
    assert list((project / ".dvc" / "tmp" / "snapshots").iterdir()) == []
    (project / "mammo" / "science.py").write_text("ANSWER = 41\n")
    assert git(project, "status", "--porcelain", "mammo") == ""  # git is taken in
    assert find_uncommitted_code(project) == ["mammo/science.py"]


def test_a_clone_goes_forward_and_keeps_its_own_tags(hostile: Path, project: Path) -> None:
    write_tag(hostile, capture(hostile), "model/v1", "not pushed yet")
    (project / "mammo" / "science.py").write_text("ANSWER = 43\n")
    (project / "mammo" / "ünïcode file.py").write_text("")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "second")
    there = git(project, "rev-parse", "HEAD")
    before = git(hostile, "rev-parse", "HEAD")
    fast_forward(hostile, there)
    assert git(hostile, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(hostile, "rev-parse", "HEAD") == there
    assert (hostile / "mammo" / "science.py").read_bytes() == b"ANSWER = 43\n"
    assert list_changes(hostile, before, there) == ["mammo/science.py", "mammo/ünïcode file.py"]
    assert git(hostile, "tag", "--list") == "model/v1"


def test_messages_are_in_english(hostile: Path) -> None:
    snapshot = capture(hostile)
    write_tag(hostile, snapshot, "model/v1", "once")
    with pytest.raises(UserError, match="already exists"):
        write_tag(hostile, snapshot, "model/v1", "again")


def test_how_a_person_reaches_a_remote_stays_theirs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    git(clone, "remote", "set-url", "origin", "hospital:code")
    (tmp_path / ".gitconfig").write_text(f'[url "{project}"]\n    insteadOf = hospital:code\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    (project / "params.yaml").write_text("seed: 2\n")
    git(project, "commit", "-qam", "second")
    fetch(clone)
    assert read_file_at(clone, "origin/main", "params.yaml") == "seed: 2\n"


def test_fetches_of_one_clone_at_the_same_time_all_succeed(project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    with ThreadPoolExecutor(4) as pool:
        for seed in range(2, 8):
            (project / "params.yaml").write_text(f"seed: {seed}\n")
            git(project, "commit", "-qam", "another")
            list(pool.map(fetch, [clone] * 4))
            assert read_file_at(clone, "origin/main", "params.yaml") == f"seed: {seed}\n"


def test_a_remote_that_does_not_answer_is_one_sentence_and_leaves_no_process(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    executable(tmp_path / "ssh", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    git(clone, "config", "core.sshCommand", str(tmp_path / "ssh"))
    git(clone, "config", "ssh.variant", "simple")
    git(clone, "remote", "set-url", "origin", "ssh://hospital/code")
    monkeypatch.setattr(run_git, "PATIENCE", 3.0)
    with pytest.raises(UserError, match=r"git fetch in .*clone did not end within 3 s: .*password"):
        fetch(clone, "--all")
    assert gone(int((tmp_path / "pid").read_text()))


def test_refs_of_a_remote_are_read_by_their_full_names_and_each_once(
    project: Path, tmp_path: Path
) -> None:
    git(project, "tag", "--annotate", "--message", "by hand", "model/v1")
    git(project, "branch", "model/v1", "HEAD")
    clone = tmp_path / "clone"
    found = read_remote_refs(clone, "origin", "refs/tags/model/v*")
    assert found == {"refs/tags/model/v1": git(project, "rev-parse", "refs/tags/model/v1")}
    assert read_remote_refs(clone, "origin", "refs/tags/other/v*") == {}
    assert has_ref(project, "refs/tags/model/v1")
    assert not has_ref(project, "model/v1")  # no full name
    assert not has_ref(clone, "refs/tags/model/v1")


def test_a_commit_comes_before_itself_and_those_after_it(project: Path) -> None:
    before = git(project, "rev-parse", "HEAD")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "second")
    assert is_ancestor(project, before, "HEAD")
    assert is_ancestor(project, "HEAD", "HEAD")
    assert not is_ancestor(project, "HEAD", before)


def test_paths_of_a_revision_are_those_that_it_holds(project: Path) -> None:
    assert list_paths(project, "HEAD", "params.yaml", "none.yaml") == ["params.yaml"]
    assert list_paths(project, "HEAD", "mammo/", "weights/") == ["mammo/science.py"]


def test_a_file_that_is_no_text_is_named(project: Path) -> None:
    (project / "params.yaml").write_bytes(b"seed: \xff\n")
    git(project, "commit", "-qam", "no text")
    with pytest.raises(UserError, match=r"params\.yaml of the revision HEAD is no UTF-8"):
        read_file_at(project, "HEAD", "params.yaml")


def test_no_other_module_calls_git_or_dvc() -> None:
    calling = re.compile(r"""\[\s*["']git["']|["']-m["'],\s*["']dvc["']|pygit2|dulwich""")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("flows", "stages", "mammo")
        for path in (ROOT / folder).rglob("*.py")
        if calling.search(path.read_text())
    }
    assert found == {"flows/processes/run_git.py"}


def test_the_callers_environment_is_left_alone(project: Path) -> None:
    before = dict(os.environ)
    git(project, "status")
    assert dict(os.environ) == before
