"""What the benchmark of plans simulates is the gate's own rule, and its tables can be printed."""

from pathlib import Path

import pytest

from benchmarks.plan import check_against_the_gate, show_no_better
from mammo.assurance.plan import Plan, load_plan
from tests.imports import ROOT


def small_plan() -> Plan:
    plan = load_plan(ROOT / Path("recipes/plans/mini-mias.yaml"))
    looks = plan.looks.model_copy(update={"number": 2, "error": 0.25, "sets": 1})
    policy = plan.policy.model_copy(update={"bootstrap": 100})
    return plan.model_copy(update={"looks": looks, "policy": policy})


def test_the_simulated_rule_gives_the_bounds_and_verdicts_of_the_gate() -> None:
    assert check_against_the_gate(small_plan(), 2) < 1e-6


def test_a_table_has_a_row_for_each_plan_and_a_share_of_the_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_no_better(small_plan(), 2)
    rows = [line for line in capsys.readouterr().out.splitlines() if " +- " in line]
    assert len(rows) == 6
    assert all(0 <= float(row.split("|")[4].split()[0]) <= 1 for row in rows)
