"""Which standard applies: by the arithmetic of the machines that made a version, and of this."""

from pathlib import Path

import pytest

from flows.audit.standard import find_standard
from flows.pipeline.graph import find_training_and_later, read_pipeline
from flows.snapshots import environment
from flows.snapshots.environment import Environment
from flows.tracking.arithmetic import measure
from tests.imports import ROOT

CPU = {"matrix product": "a", "convolution forward": "b"}
GPU = {**CPU, "convolution forward on the GPU": "c"}
STAGES = ["preprocess", "train_classifier", "evaluate"]


def made_on(
    arithmetic: dict[str, str], elsewhere: dict[str, dict[str, str]] | None = None
) -> Environment:
    update = {"arithmetic": arithmetic, "elsewhere": elsewhere or {}}
    return environment.describe_environment().model_copy(update=update)


def test_the_same_arithmetic_asks_for_the_same_bytes() -> None:
    found = find_standard(made_on(CPU), CPU, STAGES)
    assert found.name == "bit for bit"
    assert "all 2 families" in found.sentence
    (machine,) = found.machines
    assert list(machine.stages) == STAGES
    assert all(family.same for family in machine.families)


def test_a_worker_that_computes_as_this_machine_makes_no_difference() -> None:
    found = find_standard(made_on(CPU, {"train_classifier": CPU}), CPU, STAGES)
    assert found.name == "bit for bit"
    assert len(found.machines) == 1


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (CPU, {**CPU, "convolution forward": "x"}, ": convolution forward; so bytes may differ"),
        (CPU, GPU, ": convolution forward on the GPU (not there then); so"),
        (GPU, CPU, ": convolution forward on the GPU (not there now); so"),
        ({}, CPU, "no fingerprint of the arithmetic was recorded of the one that made the version"),
        ({}, {}, "no fingerprint of the arithmetic was recorded of the one that made the version"),
        (CPU, {}, "the version's own code could not tell how this machine computes"),
    ],
)
def test_other_arithmetic_is_named(then: dict[str, str], now: dict[str, str], words: str) -> None:
    found = find_standard(made_on(then), now, STAGES)
    assert found.name == "equivalence"
    assert words in found.sentence


def test_the_stages_of_a_worker_that_computes_otherwise_are_named() -> None:
    found = find_standard(made_on(CPU, {"train_classifier": GPU}), CPU, STAGES)
    assert found.name == "equivalence"
    assert found.sentence.startswith(
        "this machine computes differently from the one that ran train_classifier: convolution "
        "forward on the GPU (not there now); so"
    )
    assert [list(m.stages) for m in found.machines] == [
        ["preprocess", "evaluate"],
        ["train_classifier"],
    ]


def test_a_worker_whose_arithmetic_nobody_recorded_is_named() -> None:
    found = find_standard(made_on(CPU, {"train_classifier": {}}), CPU, STAGES)
    assert found.name == "equivalence"
    assert "was recorded of the one that ran train_classifier" in found.sentence


def test_a_machine_that_ran_nothing_does_not_count() -> None:
    everything = dict.fromkeys(STAGES, GPU)
    assert find_standard(made_on(CPU, everything), GPU, STAGES).name == "bit for bit"


def test_a_version_without_environment_is_of_unknown_arithmetic() -> None:
    found = find_standard(None, CPU, STAGES)
    assert found.name == "equivalence"
    assert not found.machines[0].recorded


def test_what_follows_from_training_is_read_from_the_pipeline() -> None:
    pipeline = read_pipeline(ROOT)
    others = {stage.name for stage in pipeline} - find_training_and_later(pipeline)
    assert others == {"preprocess", "split"}
    assert {stage.name for stage in pipeline if stage.trains} == {
        "train_detector",
        "train_classifier",
    }


def test_a_versions_own_code_measures(tmp_path: Path) -> None:
    assert measure(tmp_path) == {}  # of a time when nobody did
    (tmp_path / "mammo").mkdir()
    code = "import json, sys\nprint('a warning')\nprint(json.dumps({'PNG': sys.argv[0]}))\n"
    (tmp_path / "mammo" / "fingerprint.py").write_text(code)
    assert measure(tmp_path) == {"PNG": str(tmp_path / "mammo" / "fingerprint.py")}
