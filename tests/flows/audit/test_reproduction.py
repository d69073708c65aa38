"""A re-run is compared out by out: on a project of two small stages, with real DVC."""

import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from flows.audit.record import ComparedStage, judge_audit
from flows.audit.reproduction import Tolerance, compare_stages, run_again, score_recorded
from flows.pipeline.lock_and_cache import open_cache, read_lock
from flows.processes.follow import CommandError
from flows.processes.run_git import git
from flows.snapshots.snapshot import Snapshot, capture, materialise
from mammo.assurance.equivalence import Equivalence, Outcome
from tests.support.repositories import init_repository
from tests.support.small_project import command

DVC_YAML = f"""
    stages:
      copy:
        cmd: {sys.executable} pass_on.py
        deps: [pass_on.py, data]
        outs: [outputs/copy]
      score:
        cmd: {sys.executable} score.py
        deps: [score.py, outputs/copy]
        outs: [outputs/page.html]
        metrics: [outputs/score.json]
"""
COPY = """
    import shutil
    shutil.copytree("data", "outputs/copy")
"""
SCORE = """
    import json, os, pathlib
    score = 0.5 + float(os.environ.get("NUDGE", "0"))
    pathlib.Path("outputs/score.json").write_text(json.dumps({"score": score}))
    pathlib.Path("outputs/page.html").write_text("<p>")
"""
DICE = SCORE.replace("0.5", "__import__('time').time()")


@pytest.fixture(scope="module")
def sound_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project whose stages are sound, to be copied."""
    root = tmp_path_factory.mktemp("original") / "p"
    project(root, SCORE)
    return root


@pytest.fixture
def sound(sound_original: Path, tmp_path: Path) -> Snapshot:
    """A copy of it in the folder `p`."""
    return capture(Path(shutil.copytree(sound_original, tmp_path / "p", symlinks=True)))


def project(root: Path, score: str) -> Snapshot:
    """Two stages, run and committed."""
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.csv").write_text("x\n1\n")
    for name, text in {"dvc.yaml": DVC_YAML, "pass_on.py": COPY, "score.py": score}.items():
        (root / name).write_text(textwrap.dedent(text))
    (root / "params.yaml").write_text("seed: 1\n")
    (root / ".gitignore").write_text("/data\n/outputs\n")
    init_repository(root)
    command(root, "dvc", "init", "-q")
    command(root, "dvc", "add", "-q", "data")
    command(root, "dvc", "repro", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a small project")
    return capture(root)


def again(
    root: Path, snapshot: Snapshot, tolerance: Tolerance | None = None
) -> tuple[list[ComparedStage], list[str]]:
    said: list[str] = []
    with materialise(root, snapshot) as folder:
        run_again(folder, "data", said.append)
        stages = compare_stages(
            folder, read_lock(snapshot), open_cache(root), tolerance, said.append
        )
    return stages, said


def test_sound_code_gives_the_same_bytes_though_everything_was_in_the_cache(
    sound: Snapshot,
    tmp_path: Path,
) -> None:
    stages, said = again(tmp_path / "p", sound)
    assert [(stage.stage, stage.likeness) for stage in stages] == [
        ("copy", "identical"),
        ("score", "identical"),
    ]
    assert all(out.hash_then == out.hash_now for stage in stages for out in stage.outs)
    assert any("Running stage 'score'" in line for line in said)
    assert judge_audit([], stages, None, quick=False) == "reproduced bit for bit"


def test_a_number_that_moved_is_another_number_however_little(
    sound: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUDGE", "1e-15")
    (copy, score), _ = again(tmp_path / "p", sound)
    assert copy.likeness == "identical"
    assert score.likeness == "different"
    assert score.deterministic is True
    found = {out.path: out for out in score.outs}
    assert found["outputs/page.html"].likeness == "identical"
    assert found["outputs/score.json"].details[0].startswith("score.json: score was 0.5, is 0.")
    assert judge_audit([], [copy, score], None, quick=False) == "not reproduced"
    # Where another arithmetic is allowed for, too: this stage does not follow from training.
    tolerant, _ = again(tmp_path / "p", sound, Tolerance({"copy"}, pixels=3))
    assert [stage.likeness for stage in tolerant] == ["identical", "different"]


def test_what_says_the_same_in_other_bytes_is_the_same_where_the_arithmetic_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 'json.dumps({"score": score}'
    snapshot = project(
        tmp_path / "p",
        SCORE.replace(written, f'{written}, indent=int(os.environ.get("INDENT", 0)) or None'),
    )
    monkeypatch.setenv("INDENT", "2")
    strictly, _ = again(tmp_path / "p", snapshot)
    assert strictly[1].likeness == "different"
    stages, _ = again(tmp_path / "p", snapshot, Tolerance(set(), pixels=3))
    assert stages[1].likeness == "alike"
    assert stages[1].outs[1].details == ["score.json: the same values, written otherwise"]


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        ("equivalent", "reproduced in effect"),
        ("not equivalent", "not reproduced"),
        ("too small to tell", "too small to tell"),
        (None, "not reproduced"),
    ],
)
def test_what_follows_from_training_is_listed_and_not_judged_by_itself(
    sound: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome | None,
    verdict: str,
) -> None:
    monkeypatch.setenv("NUDGE", "0.1")
    stages, said = again(tmp_path / "p", sound, Tolerance({"score"}, pixels=3))
    assert [stage.likeness for stage in stages] == ["identical", "follows from training"]
    (moved,) = [out for out in stages[1].outs if out.path == "outputs/score.json"]
    assert moved.hash_now not in (None, moved.hash_then)
    assert not any("once more" in line for line in said)
    found = Equivalence(outcome, "why", (), 1, 2, 1) if outcome else None
    assert judge_audit([], stages, found, quick=False) == verdict


def test_a_stage_does_again_what_it_did_with_the_inputs_of_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "p"
    snapshot = project(root, SCORE)
    copy, score = read_lock(snapshot)
    monkeypatch.setenv("NUDGE", "0.1")
    with materialise(root, snapshot) as folder:
        said: list[str] = []
        score_recorded(folder, score, copy.outs, said.append)
        assert (folder / "outputs/copy/a.csv").read_text() == "x\n1\n"
        assert (folder / "outputs/score.json").read_text() == '{"score": 0.6}'
        assert not (folder / "data").exists()
    assert not any("Running stage 'copy'" in line for line in said)


def test_a_stage_that_gives_other_bytes_each_time_is_called_so(tmp_path: Path) -> None:
    snapshot = project(tmp_path / "p", DICE)
    stages, said = again(tmp_path / "p", snapshot)
    assert [stage.deterministic for stage in stages] == [None, False]
    assert any("running it once more" in line for line in said)


def test_a_stage_that_fails_says_its_last_lines(tmp_path: Path) -> None:
    # It fails in the audit's directory only.
    score = SCORE + "    if '.dvc/tmp' in os.getcwd(): raise SystemExit('no')\n"
    snapshot = project(tmp_path / "p", score)
    with pytest.raises(CommandError, match="no\n"):
        again(tmp_path / "p", snapshot)


def test_a_file_more_or_less_in_a_folder_is_named(tmp_path: Path) -> None:
    root = tmp_path / "p"
    snapshot = project(root, SCORE)
    (root / "data" / "a.csv").unlink()
    (root / "data" / "b.csv").write_text("x\n1\n")
    command(root, "dvc", "add", "-q", "data")
    forged = Snapshot(
        snapshot.commit, {**snapshot.files, "data.dvc": (root / "data.dvc").read_text()}
    )
    stages, _ = again(root, forged)
    assert stages[0].likeness == "different"
    assert list(stages[0].outs[0].details) == ["a.csv: was there and is not", "b.csv: is new"]
