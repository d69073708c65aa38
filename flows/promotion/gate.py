"""The gate at work: both models' predictions, the decision, and the record of it in MLflow.

`flows.promotion.rescoring` brings the predictions, `mammo.assurance.promotion_rule.decide`
decides. The verdict stands in the version's tags, its table and the predictions among the artifacts
of the version's run.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.processes.follow import CommandError
from flows.processes.run_git import NoAnswerError
from flows.processes.words import Say
from flows.promotion.budget import Look
from flows.tracking.names import MODEL
from flows.tracking.registry import read_run_id
from mammo.assurance.plan import Plan
from mammo.base.errors import UserError

if TYPE_CHECKING:
    from flows.promotion.rescoring import ComparedModels
    from mammo.assurance.promotion_rule import Decision, Reason

Word = Literal["promote", "refuse", "outside the plan", "no look left", "cannot be judged"]

PAGE = "gate.html"
"""The page of the last verdict, at the top of the artifacts of a version's run."""

NO_CHAMPION = "none"
"""The value of the tag `gate_against` if there was no champion."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a version, and against which champion."""

    version: int
    champion: int | None  # None if there was none to compare with
    word: Word
    sentence: str
    decision: "Decision | None"  # None if there was none, or it was read back from the registry


def judge(
    root: Path,
    champion: ModelVersion,
    reference: ModelVersion | None,
    challenger: ModelVersion,
    plan: Plan,
    look: Look,
    say: Say,
) -> Verdict:
    """Compare a version with the champion and record the verdict, whatever it is.

    Args:
        root: the project.
        champion: the version that serves.
        reference: the plan's, if there is one: it is compared, too, unless it is the champion.
        challenger: the version that may become champion.
        plan: the conditions.
        look: that was taken: its error is that of the bounds.
        say: gets a line for each step that takes long.

    Raises:
        NoAnswerError: if git's remote does not answer: that is no verdict.
    """
    pair = int(challenger.version), int(champion.version)
    try:
        found, decision = _compare_and_decide(
            root, champion, reference, challenger, plan, look, say
        )
    except NoAnswerError:
        raise
    except (UserError, CommandError, ValueError) as error:
        return _record(challenger, Verdict(*pair, "cannot be judged", str(error), None), plan, look)
    unread = _name_unread(plan, found.images, found.unread_by_champion, found.unread_by_challenger)
    if found.alone is not None and found.unread_by_challenger:
        unread += (
            f"; the champion's auROC is {found.alone:.3f} where only what it cannot read itself "
            f"counts so"
        )
    sentence = _compose_sentence(decision, unread, look)
    if found.same:
        sentence = (
            f"its networks and settings are those of the champion, version {champion.version}, "
            f"byte for byte, so nothing was scored again: {sentence}"
        )
    verdict = Verdict(*pair, _name_decision(decision), sentence, decision)
    return _record(challenger, verdict, plan, look, found.breasts)


def _compare_and_decide(
    root: Path,
    champion: ModelVersion,
    reference: ModelVersion | None,
    challenger: ModelVersion,
    plan: Plan,
    look: Look,
    say: Say,
) -> tuple["ComparedModels", "Decision"]:
    """Score the models on the same test women, and apply the plan's conditions.

    Returns:
        The comparison with the champion, and what follows from it and from the reference.

    Raises:
        UserError, CommandError, ValueError: if the models cannot be compared.
    """
    # Not at the top, since they import scikit-learn: a retrain with nothing to do saves a second.
    from flows.promotion.rescoring import compare
    from mammo.assurance.promotion_rule import add_reasons, check_unread, decide, hold_against

    policy = plan.policy
    shared = ["patient_id", "laterality", "target", "probability"]
    found = compare(root, champion, challenger, policy.subgroups.by, plan.unread.count, say)
    decision = decide(
        found.breasts.rename(columns={"champion": "probability"})[shared],
        found.breasts.rename(columns={"challenger": "probability"}),
        policy,
        look.confidence,
    )
    unread = found.unread_by_champion, found.unread_by_challenger
    further = [check_unread(*unread, found.images, plan.unread.more)]
    if found.positives:
        further.append(
            check_unread(*found.unread_positives, found.positives, plan.unread.more, positive=True)
        )
    if reference is not None and reference.version not in (champion.version, challenger.version):
        held = compare(root, reference, challenger, (), plan.unread.count, say)
        further += hold_against(
            held.breasts.rename(columns={"champion": "probability"})[shared],
            held.breasts.rename(columns={"challenger": "probability"})[shared],
            plan.reference,
            int(reference.version),
            policy,
            look.confidence,
        )
    return found, add_reasons(decision, further)


def judge_first(root: Path, version: ModelVersion, plan: Plan, look: Look, say: Say) -> Verdict:
    """Compare a version with the policy's floors and record the verdict, if there is no champion.

    Raises:
        NoAnswerError: as `judge`.
    """
    from flows.promotion.rescoring import read_own_predictions
    from mammo.assurance.promotion_rule import check_floors

    number = int(version.version)
    try:
        found = read_own_predictions(root, version, plan.unread.count, say)
        decision = check_floors(found.breasts, plan.policy)
    except NoAnswerError:
        raise
    except (UserError, CommandError, ValueError) as error:
        sentence = f"there was no champion yet, and the floors cannot be checked: {error}"
        verdict = Verdict(number, None, "cannot be judged", sentence, None)
        return _record(version, verdict, plan, look)
    blind = _name_unread(plan, found.images, None, found.unread)
    sentence = f"there was no champion yet: {_compose_sentence(decision, blind, look)}"
    verdict = Verdict(number, None, _name_decision(decision), sentence, decision)
    return _record(version, verdict, plan, look, found.breasts)


def record_uncompared(
    version: ModelVersion, champion: int | None, word: Word, plan: Plan, sentence: str
) -> Verdict:
    """Record a verdict that was reached without a comparison."""
    verdict = Verdict(int(version.version), champion, word, sentence, None)
    return _record(version, verdict, plan)


def find_verdict(challenger: ModelVersion, champion: int) -> Verdict | None:
    """The verdict in the registry on a version, if it was reached against this champion."""
    tags = challenger.tags
    word = next((word for word in get_args(Word) if word == tags.get("gate_verdict")), None)
    if tags.get("gate_against") != str(champion) or word is None:
        return None
    return Verdict(int(challenger.version), champion, word, tags.get("gate_sentence", ""), None)


def _name_decision(decision: "Decision") -> Word:
    return "promote" if decision.promote else "refuse"


def _compose_sentence(decision: "Decision", unread: str, look: Look) -> str:
    """The decision in one sentence, with the conditions that failed."""
    failures = "; ".join(reason.sentence for reason in decision.failures)
    size = (
        f"{decision.breasts} test breasts, {decision.positives} of them positive{unread}; "
        f"{look.sentence}"
    )
    if failures:
        return f"{failures} ({size})"
    met = (
        "the policy's floor is met"
        if len(decision.reasons) == 1
        else (f"all {len(decision.reasons)} conditions of the policy are met")
    )
    return f"{met} ({size})"


def _name_unread(plan: Plan, images: int, champion: int | None, challenger: int) -> str:
    """How many images were not read, and what they count; nothing if all were."""
    if not (champion or challenger):
        return ""
    whose = [f"the challenger could not read {challenger}"]
    if champion is not None:
        whose.append(f"the champion {champion}")
    counts = "counts as 0" if plan.unread.count == "lowest" else "is left out"
    return f"; of {images} images {', '.join(whose)}, and each of these {counts} for both"


def _record(
    challenger: ModelVersion,
    verdict: Verdict,
    plan: Plan,
    look: Look | None = None,
    breasts: pd.DataFrame | None = None,
) -> Verdict:
    """Write a verdict to the version's tags, its table and predictions to the run; return it."""
    client = MlflowClient()
    now = datetime.now(UTC)
    for name in challenger.tags:  # of a verdict against another champion
        if name.startswith("gate"):
            client.delete_model_version_tag(MODEL, challenger.version, name)
    tags = {
        "gate_policy": plan.policy.model_dump_json(),
        "gate_plan": json.dumps(plan.model_dump(mode="json", exclude={"policy"}), sort_keys=True),
        "gate_date": now.isoformat(timespec="seconds"),
        "gate_sentence": verdict.sentence[:5000],
    }
    if look is not None:
        tags["gate_look"] = json.dumps(asdict(look), sort_keys=True)
    if verdict.decision is not None:
        for reason in verdict.decision.reasons:
            tags[_name_tag(reason)] = (
                f"{'passed' if reason.passed else 'failed'}: {reason.sentence}"
            )
        run, folder = read_run_id(challenger), f"gates/{now:%Y-%m-%dT%H%M%S}"
        table = pd.DataFrame([asdict(reason) for reason in verdict.decision.reasons])
        client.log_table(run, table, f"{folder}/decision.json")
        assert breasts is not None
        client.log_text(run, breasts.to_csv(index=False), f"{folder}/breasts.csv")
        client.log_text(run, _render_page(verdict, table), PAGE)
    # These two come last: they say that the record is whole.
    against = NO_CHAMPION if verdict.champion is None else str(verdict.champion)
    tags |= {"gate_verdict": verdict.word, "gate_against": against}
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, challenger.version, name, value)
    return verdict


def _render_page(verdict: Verdict, table: pd.DataFrame) -> str:
    """A verdict as a page for MLflow."""
    against = "no champion" if verdict.champion is None else f"version {verdict.champion}"
    shown = table[
        ["check", "group", "against", "champion", "challenger", "bound", "limit", "passed"]
    ]
    return (
        f"<!doctype html><title>Gate</title>\n<h2>{MODEL} version {verdict.version} against "
        f"{against}: {verdict.word}</h2>\n<p>{escape(verdict.sentence)}</p>\n"
        f"{shown.to_html(index=False, na_rep='')}\n"
    )


def _name_tag(reason: "Reason") -> str:
    """A tag's name for a reason: MLflow allows letters, digits and a few signs."""
    against = f"version {reason.against}" if reason.against is not None else None
    parts = ("gate", reason.check, reason.group, against)
    text = ".".join(part for part in parts if part is not None)
    return "".join(sign if sign.isalnum() or sign in "_-. " else "_" for sign in text)[:250]
