"""Any dvc.yaml becomes Prefect tasks: on a project of three small shell stages, with real DVC."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.output import Output
from dvc.repo import Repo

from flows.pipeline.graph import Meta, Stage, read_pipeline, read_status, repro
from flows.pipeline.status import hash_once
from flows.processes.follow import CommandError, follow
from mammo.base.errors import UserError
from tests.imports import ROOT
from tests.support.toys import RUN_STAGES

DVC_YAML = """
    stages:
      # declared last to first: the order must come from the graph
      right:
        cmd: bash -c 'date +%s.%N > started; sleep 2; cp outputs/base/x.txt outputs/right.txt'
        deps: [outputs/base/x.txt]
        outs: [outputs/right.txt]
      left:
        cmd: cp outputs/base/x.txt outputs/left.txt
        deps: [outputs/base/x.txt]
        params: [seed, nested.depth]
        outs: [outputs/left.txt]
        meta: {pool: gpu, retries: 2, retry_delay: 0, time_limit: 30}
      base:
        cmd: >-
          bash -c 'mkdir -p outputs/base; cp in.txt outputs/base/x.txt;
          echo "{}" > outputs/base/m.json; echo "a,b" > outputs/base/p.csv; echo made'
        deps: [in.txt]
        outs: [outputs/base/x.txt]
        metrics: [outputs/base/m.json]
        plots: [outputs/base/p.csv]
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A git and DVC project of three stages."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(textwrap.dedent(DVC_YAML))
    (tmp_path / "params.yaml").write_text("seed: 1\nnested: {depth: 2}\n")
    (tmp_path / "in.txt").write_text("hello\n")
    return tmp_path


def run(stage: Stage, root: Path) -> tuple[str, list[str]]:
    lines: list[str] = []
    fate = repro(stage, root, {"PATH": "/usr/bin:/bin"}, lines.append)
    return fate, lines


def test_the_graph_is_dvcs_own(toy: Path) -> None:
    base, left, right = read_pipeline(toy)
    assert (base.name, left.name, right.name) == ("base", "left", "right")
    assert left.upstream == right.upstream == ("base",)
    assert base.upstream == ()
    assert base.metrics == (Path("outputs/base/m.json"),)
    assert base.plots == (Path("outputs/base/p.csv"),)
    assert left.params == ("nested.depth", "seed")
    assert left.meta == Meta(pool="gpu", retries=2, retry_delay=0, time_limit=30)
    assert right.meta == Meta()


def test_a_pool_may_be_a_setting_and_another_one_runs_nothing_again(toy: Path) -> None:
    left = read_pipeline(toy)[1]
    for stage in read_pipeline(toy)[:2]:
        run(stage, toy)
    lock = (toy / "dvc.lock").read_bytes()
    declared = (toy / "dvc.yaml").read_text()
    assert "{pool: gpu," in declared
    (toy / "dvc.yaml").write_text(declared.replace("{pool: gpu,", '{pool: "${where}",'))
    for pool in ("cpu", "gpu"):
        (toy / "params.yaml").write_text(f"seed: 1\nnested: {{depth: 2}}\nwhere: {pool}\n")
        base, again, _ = read_pipeline(toy)
        assert again == replace(left, meta=left.meta.model_copy(update={"pool": pool}))
        assert [run(stage, toy)[0] for stage in (base, again)] == ["unchanged"] * 2
        assert (toy / "dvc.lock").read_bytes() == lock


def test_a_stage_added_to_dvc_yaml_appears_without_another_line(toy: Path) -> None:
    with (toy / "dvc.yaml").open("a") as file:
        file.write("  last:\n    cmd: cp outputs/left.txt outputs/last.txt\n")
        file.write("    deps: [outputs/left.txt]\n    outs: [outputs/last.txt]\n")
    by_name = {stage.name: stage for stage in read_pipeline(toy)}
    assert by_name["last"].upstream == ("left",)


@pytest.mark.parametrize("meta", ["{retrys: 2}", "{time_limit: -1}", "{pool: [gpu]}"])
def test_a_mistake_in_meta_names_stage_and_key(toy: Path, meta: str) -> None:
    with (toy / "dvc.yaml").open("a") as file:
        file.write(f"  wrong:\n    cmd: echo\n    meta: {meta}\n")
    with pytest.raises(UserError, match=rf"meta of the stage wrong: {meta[1:].split(':')[0]}"):
        read_pipeline(toy)


def test_a_stage_runs_then_is_unchanged_then_comes_from_the_cache(toy: Path) -> None:
    base = read_pipeline(toy)[0]
    assert "base" in read_status(toy)
    fate, lines = run(base, toy)
    assert fate == "ran"
    assert "made" in lines
    assert "base" not in read_status(toy)
    assert run(base, toy)[0] == "unchanged"
    (toy / "outputs/base/x.txt").unlink()
    (toy / "dvc.lock").unlink()
    assert run(base, toy)[0] == "cached"
    assert (toy / "outputs/base/x.txt").read_text() == "hello\n"


def test_what_a_person_has_set_for_dvc_changes_nothing(
    toy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    theirs = tmp_path_factory.mktemp("person")
    settings = "[core]\n    interactive = true\n    autostage = true\n    no_scm = true\n"
    (theirs / "config").write_text(settings)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(theirs))
    (toy / ".dvc" / "config.local").write_text(settings)
    shell = theirs / "shell"
    shell.write_text("#!/bin/sh\nexit 1\n")
    shell.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    monkeypatch.setenv("BASH_ENV", str(shell))
    assert run(read_pipeline(toy)[0], toy)[0] == "ran"
    assert "base" not in read_status(toy)
    staged = ["git", "diff", "--cached", "--name-only"]
    said = subprocess.run(staged, cwd=toy, capture_output=True, text=True, check=True).stdout
    assert "dvc.lock" not in said
    assert (toy / "outputs" / "base" / ".gitignore").exists()  # by git's rules, not without it


def test_status_is_dvcs_own_and_looks_at_each_place_once(toy: Path) -> None:
    with (toy / "dvc.yaml").open("a") as file:
        file.write("  last:\n    cmd: cp in.txt last.txt\n    deps: [in.txt, outputs/base/x.txt]\n")
        file.write("    outs: [last.txt]\n")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=toy, check=True)
    assert read_status(toy) == {}
    (toy / "in.txt").write_text("changed\n")
    (toy / "outputs/base/x.txt").unlink()
    plain = [sys.executable, "-m", "dvc", "status", "--json"]
    theirs = subprocess.run(plain, cwd=toy, capture_output=True, check=True).stdout
    assert read_status(toy) == json.loads(theirs)
    assert {"base", "left", "last"} <= set(read_status(toy))
    looked: list[str] = []

    def get_hash(output: Output) -> int:
        looked.append(output.fs_path)
        return len(looked)

    with Repo(str(toy)) as repo:
        deps = [dep for stage in repo.index.stages for dep in stage.deps]
        files = [dep for dep in deps if dep.fs_path.endswith("in.txt")]
        remembered = hash_once(get_hash)
        assert [remembered(file) for file in files] == [1, 1]
    assert looked == [str(toy / "in.txt")]


def test_a_failing_stage_tells_its_last_lines_and_leaves_no_lock_entry(toy: Path) -> None:
    with (toy / "dvc.yaml").open("a") as file:
        file.write("  wrong:\n    cmd: bash -c 'echo no such breast >&2; exit 1'\n")
        file.write("    outs: [outputs/wrong.txt]\n")
    wrong = next(stage for stage in read_pipeline(toy) if stage.name == "wrong")
    with pytest.raises(CommandError, match="no such breast"):
        run(wrong, toy)
    assert not (toy / "dvc.lock").exists() or "wrong" not in (toy / "dvc.lock").read_text()


def test_a_stage_that_outlasts_its_limit_is_stopped(toy: Path) -> None:
    base, _, right = read_pipeline(toy)
    run(base, toy)
    hurried = Stage(right.name, right.upstream, Meta(time_limit=0.5), (), (), (), (), (), False)
    with pytest.raises(CommandError, match=r"stopped after 0\.5 s"):
        run(hurried, toy)


def flow_output(toy: Path, server: dict[str, str]) -> list[str]:
    """Run the toy's stages in a Prefect flow, in a process of its own."""
    (toy / "flow.py").write_text(textwrap.dedent(RUN_STAGES))
    env = {"PYTHONPATH": str(ROOT), **server}
    return follow([sys.executable, "flow.py"], toy, print, env, time_limit=300)


def test_prefect_runs_every_stage_and_independent_ones_side_by_side(
    toy: Path, prefect_server: dict[str, str]
) -> None:
    # Each of the two waits for the other's sign of life: one after the other would never end.
    together = (
        "bash -c 'touch {me}.up; until [ -e {other}.up ]; do sleep 0.1; done; touch {me}.out'"
    )
    (toy / "dvc.yaml").write_text(
        "stages:\n"
        + "".join(
            f'  {me}:\n    cmd: "{together.format(me=me, other=other)}"\n    outs: [{me}.out]\n'
            f"    meta: {{time_limit: 60}}\n"
            for me, other in (("left", "right"), ("right", "left"))
        )
    )
    lines = flow_output(toy, prefect_server)
    assert {"left ran", "right ran"} <= set(lines)


def test_prefect_retries_a_stage_as_its_meta_says(
    toy: Path, prefect_server: dict[str, str]
) -> None:
    (toy / "dvc.yaml").write_text(
        "stages:\n  shaky:\n"
        "    cmd: \"bash -c 'echo try >> tries; [ $(wc -l < tries) = 3 ] && touch done.out'\"\n"
        "    outs: [done.out]\n    meta: {retries: 2, retry_delay: 0}\n"
    )
    lines = flow_output(toy, prefect_server)
    assert "shaky ran" in lines
    assert (toy / "tries").read_text() == "try\n" * 3


def test_prefect_names_the_stage_that_failed_and_runs_nothing_after_it(
    toy: Path, prefect_server: dict[str, str]
) -> None:
    (toy / "in.txt").unlink()
    with pytest.raises(CommandError, match=r"in\.txt"):
        flow_output(toy, prefect_server)
    assert not (toy / "outputs/left.txt").exists()
