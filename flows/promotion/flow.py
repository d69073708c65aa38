"""Promotion: a version is compared with the champion, and may become champion itself.

    mammoflow promote 3                          # the gate decides, as plan.yaml says
    mammoflow promote 3 --reason "..."           # you decide; the gate's verdict is recorded

A retrain does the first of the two for each version that it registers.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow.entities.model_registry import ModelVersion
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Failed

from flows.evidence.keys import find_owner
from flows.evidence.ledger import publish_ledger
from flows.evidence.signing import sign_decision, sign_evaluation, sign_plan
from flows.evidence.verify import ROLES
from flows.notify import notify, notify_failure
from flows.processes.follow import CommandError
from flows.processes.run_git import NoAnswerError
from flows.processes.words import put_in_one_line
from flows.promotion.budget import NoLookLeftError, find_other_rules, take_look
from flows.promotion.changes import find_outside, find_reference
from flows.promotion.gate import (
    NO_CHAMPION,
    Verdict,
    Word,
    find_verdict,
    judge,
    judge_first,
    record_uncompared,
)
from flows.promotion.networks import digest_networks
from flows.tracking import aliases, registry
from flows.tracking.find_version import find_version
from flows.tracking.names import MODEL
from flows.tracking.register import COMPLETION_TAG
from flows.tracking.registry import CHALLENGER, CHAMPION
from mammo.assurance.plan import PLAN_FILE, Plan, load_plan
from mammo.base.errors import UserError

GateOutcome = Literal[
    "promoted",
    "waits for approval",
    "refused",
    "outside the plan",
    "no look left",
    "not judged",
]

_OUTCOMES: dict[Word, GateOutcome] = {
    "promote": "promoted",
    "refuse": "refused",
    "outside the plan": "outside the plan",
    "no look left": "no look left",
    "cannot be judged": "not judged",
}


@dataclass(frozen=True)
class Promotion:
    """What became of a version at the gate."""

    version: int
    champion: int | None  # before; None if there was none
    outcome: GateOutcome
    verdict: Verdict | None  # None if there was no champion to compare with
    sentence: str


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE)
def run_gate(root: Path, version: ModelVersion, plan: Plan) -> Promotion:
    """Let the gate judge a version, and promote it if the verdict and the policy allow that."""
    champion, absence = _find_champion()
    number, known = int(version.version), int(champion.version) if champion is not None else None
    sign_plan(root, plan)  # before the look
    objection = _find_objection(version)
    if objection is not None:
        verdict = record_uncompared(version, known, "refuse", plan, objection)
    elif champion is None and absence is not None:
        sentence = f"{absence}, so nothing can be compared: {_advise(version)}"
        verdict = record_uncompared(version, None, "cannot be judged", plan, sentence)
    else:
        verdict = _look_and_judge(root, champion, version, plan)
    _show_verdict(verdict)
    outcome = _OUTCOMES[verdict.word]
    who, stays = aliases.AUTOMATIC, (verdict.champion, verdict.champion)
    if verdict.word in ("refuse", "outside the plan", "no look left"):
        sign_decision(root, "refusal", version, who, verdict.sentence, stays, verdict.word)
    elif verdict.word == "promote":
        if plan.policy.approve == "manual" and champion is not None:
            outcome = "waits for approval"
        else:
            try:
                aliases.check_unmoved(number, verdict.champion)
            except UserError as error:
                return _announce(root, version, verdict.champion, "not judged", verdict, str(error))
            aliases.make_champion(number, who, f"the gate: {verdict.sentence}")
            move = (verdict.champion, number)
            fault = _sign_move(
                root, "promotion", version, who, verdict.sentence, move, verdict.word
            )
            if fault is not None:
                get_run_logger().warning(fault)
    return _announce(root, version, verdict.champion, outcome, verdict, verdict.sentence)


def _look_and_judge(
    root: Path, champion: ModelVersion | None, version: ModelVersion, plan: Plan
) -> Verdict:
    """Find whether the plan permits a version and a look at it, then compare, record and sign.

    Raises:
        NoAnswerError: if git's remote does not answer: that is no verdict.
    """
    from flows.promotion.rescoring import require_snapshot  # it imports scikit-learn

    say, known = get_run_logger().info, int(champion.version) if champion is not None else None
    try:
        reference = find_reference(plan.reference) if champion is not None else None
        outside = find_outside(root, reference, version, plan.changes, say)
        if outside:
            what = f"{PLAN_FILE} does not permit what changed"
            if reference is not None:
                what += f" since version {reference.version}"
            sentence = f"{what}: {'; '.join(outside)}: {_advise(version)}"
            return record_uncompared(version, known, "outside the plan", plan, sentence)
        look = take_look(root, require_snapshot(root, version), plan, say)
        if said := find_other_rules(look, plan):
            sentence = f"no look is left: {said}: {_advise(version)}"
            return record_uncompared(version, known, "no look left", plan, sentence)
    except NoLookLeftError as error:
        return record_uncompared(version, known, "no look left", plan, str(error))
    except NoAnswerError:
        raise
    except (UserError, CommandError) as error:
        return record_uncompared(version, known, "cannot be judged", plan, str(error))
    if champion is None:
        verdict = judge_first(root, version, plan, look, say)
    else:
        verdict = judge(root, champion, reference, version, plan, look, say)
    if verdict.decision is not None:
        signed = sign_evaluation(
            root, version, verdict.champion, plan, verdict.decision, verdict.word, asdict(look)
        )
        if signed is not None:
            say(f"signed: {signed.name}")
    return verdict


def was_judged(version: ModelVersion) -> bool:
    """Whether a registered version has been at the gate, whatever came of it, or was champion."""
    if COMPLETION_TAG not in version.tags:
        return False
    if int(version.version) in aliases.list_champions():
        return True
    return "gate_verdict" in version.tags and not _lacks_promotion(version)


def _lacks_promotion(version: ModelVersion) -> bool:
    """Whether the gate was cut short between its verdict and the promotion that follows from it.

    Args:
        version: one that never was champion.
    """
    against, champion = version.tags.get("gate_against"), aliases.read_current().get(CHAMPION)
    if version.tags.get("gate_verdict") != "promote":
        return False
    if against == NO_CHAMPION:
        return _find_champion() == (None, None)
    automatic = '"approve":"automatic"' in version.tags.get("gate_policy", "")
    return automatic and against == str(champion)


def needs_gate(version: ModelVersion) -> bool:
    """Whether a challenger still has to go to the gate.

    That is so if it was never compared with a champion, or was not promoted as the verdict demands:
    the retrain that made it was cut short, or there was no champion then. A verdict against an
    earlier champion counts: people may have rolled back since.
    """
    now = aliases.read_current()
    if not now.get(CHALLENGER) == int(version.version) != now.get(CHAMPION):
        return False
    if int(version.version) in aliases.list_champions():
        return False
    against = version.tags.get("gate_against")
    if against == NO_CHAMPION and _find_champion()[0] is not None:
        return True
    return against is None or _lacks_promotion(version)


@flow(
    name="promote",
    flow_run_name="promote {version}",
    on_failure=[notify_failure],
    on_crashed=[notify_failure],
)
def promote(version: str, reason: str | None = None) -> Promotion | State[Any]:
    """Make a model version champion, if the gate or a person says so.

    Args:
        version: a number such as 3, or an alias such as challenger.
        reason: why you want it whatever the gate says; kept with your name by git. Without a reason
            the gate decides, and moves the alias where `policy.approve` is automatic.

    Returns:
        What became of it; or, where the user can mend what is wrong, a failed state that says it.
    """
    root = Path.cwd()
    try:
        plan = load_plan(root / PLAN_FILE)
        found = find_candidate(root, version, reason)
        if reason is None:
            return run_gate(root, found, plan)
        return _override(root, found, plan, aliases.check_reason(reason))
    except registry.EXPECTED as error:
        return Failed(message=registry.describe_error(error))


def find_candidate(root: Path, version: str, reason: str | None) -> ModelVersion:
    """The version that somebody wants to promote.

    Raises:
        UserError: if there is no such version, if it is the champion already, if the reason is
            empty, if git does not know who gives it, or if there is a key that cannot be used.
    """
    registry.open_store(root)
    found, (champion, _) = find_version(version), _find_champion()
    if champion is not None and champion.version == found.version:
        raise UserError(f"version {found.version} is the champion already")
    if reason is not None:
        aliases.check_reason(reason)
        aliases.identify_person(root)
        find_owner(root, *ROLES["approval"])  # raises if a key cannot be used
    return found


def _override(root: Path, version: ModelVersion, plan: Plan, reason: str) -> Promotion:
    """Promote a version as a person decided; the gate judges it, too, but only for the record."""
    who, number = aliases.identify_person(root), int(version.version)
    now, (champion, _) = aliases.read_current().get(CHAMPION), _find_champion()
    verdict = None
    if champion is not None:
        verdict = find_verdict(version, int(champion.version))
        if verdict is None:
            sign_plan(root, plan)  # before the look
            verdict = _look_and_judge(root, champion, version, plan)
        _show_verdict(verdict)
    aliases.check_unmoved(number, now)
    find_owner(
        root, *ROLES["approval"]
    )  # the last thing that may hinder it, before the alias moves
    aliases.make_champion(number, who, reason)
    said = verdict.word if verdict is not None else None
    fault = _sign_move(root, "approval", version, who, reason, (now, number), said)
    if fault is not None:
        get_run_logger().warning(fault)
    gate = f" (the gate: {said})" if said is not None else ""
    return _announce(root, version, now, "promoted", verdict, f"{who}: {reason}{gate}")


def roll_back(root: Path, reason: str) -> tuple[int, int, str | None]:
    """Make the previous champion champion again.

    Returns:
        The version that was champion; the one that is champion now; and why that could not be
        signed, or None.

    Raises:
        UserError: if there is none, if git does not know who asks, if the reason is empty, or if
            there is a key that cannot be used. Then no alias has moved.
    """
    why, who = aliases.check_reason(reason), aliases.identify_person(root)
    find_owner(root, *ROLES["rollback"])  # raises if a key cannot be used
    registry.open_store(root)
    before, now = aliases.roll_back(who, why, _digest_networks_of)
    version = registry.get_version(now)
    fault = _sign_move(root, "rollback", version, who, why, (before, now))
    publish_ledger(root)  # what hinders it hinders no rollback; the next publication says it
    notify(f"{MODEL}: rolled back from version {before} to {now}", f"{who}: {why}")
    return before, now, fault


def _sign_move(
    root: Path,
    kind: str,
    version: ModelVersion,
    who: str,
    why: str,
    move: tuple[int | None, int],
    verdict: str | None = None,
) -> str | None:
    """Sign a decision whose alias has moved; what hinders that does not undo the move.

    Args:
        root: the clone.
        kind: promotion, approval or rollback.
        version: that is champion now.
        who: decided.
        why: the reason.
        move: the champion before, and after it.
        verdict: the gate's word, if it said one.

    Returns:
        Why it is not signed, and what to do; None if it is, or if nobody has a key.
    """
    try:
        sign_decision(root, kind, version, who, why, move, verdict)
    except (*registry.EXPECTED, OSError) as error:
        said = put_in_one_line(registry.describe_error(error))
        return (
            f"version {version.version} is champion, and this {kind} could not be signed: {said}; "
            f"it is on record in MLflow (`mammoflow aliases`): mend this before the next decision"
        )
    return None


def _find_champion() -> tuple[ModelVersion | None, str | None]:
    """The champion; or None and, if there ever was a champion, a sentence about what happened."""
    number = aliases.read_current().get(CHAMPION)
    if number is not None:
        return registry.find(number), f"the champion, version {number}, was deleted in MLflow"
    past = [made.version for made in aliases.read_history() if made.alias == CHAMPION]
    if not past:
        return None, None
    return None, (
        f"there is no champion: version {past[-1]} was, until it or its alias was deleted in MLflow"
    )


def _find_objection(version: ModelVersion) -> str | None:
    """Why the gate does not judge a version; None if it does.

    People rolled back from the version, or from one with the same weights, which may have been
    deleted since. What a person decided, only a person can change.
    """
    rolled_back = aliases.list_rolled_back()
    mine = digest_networks(version) if rolled_back else ""
    for number, made in sorted(rolled_back.items()):
        if number == int(version.version):
            what = "it"
        elif mine and mine == (made.weights or _digest_networks_of(number)):
            what = f"version {number}, which has the same weights,"
        else:
            continue
        return (
            f"{what} was rolled back on {made.date[:10]} by {made.who} ({made.why}): "
            f"{_advise(version)}"
        )
    return None


def _digest_networks_of(number: int) -> str:
    """The digest of the networks of a version; empty if it was deleted."""
    found = registry.find(number)
    return digest_networks(found) if found is not None else ""


def _advise(version: ModelVersion) -> str:
    return f'decide yourself with `mammoflow promote {version.version} --reason "..."`'


def _announce(
    root: Path,
    version: ModelVersion,
    champion: int | None,
    outcome: GateOutcome,
    verdict: Verdict | None,
    sentence: str,
) -> Promotion:
    """Log what became of a version, publish what was signed, notify, and return it."""
    heading = f"{MODEL} version {version.version}: {outcome}"
    get_run_logger().info("%s: %s", heading, sentence)
    if fault := publish_ledger(root):
        get_run_logger().warning(fault)
    notify(heading, sentence)
    return Promotion(int(version.version), champion, outcome, verdict, sentence)


def _show_verdict(verdict: Verdict) -> None:
    """Show a verdict in Prefect, under the key `gate`: a table of the conditions with numbers."""
    against = "no champion" if verdict.champion is None else f"version {verdict.champion}"
    text = (
        f"## {MODEL} version {verdict.version} against {against}\n\n"
        f"**{verdict.word}**: {verdict.sentence}\n"
    )
    if verdict.decision is None:
        create_markdown_artifact(text, key="gate", description=_write_heading(verdict))
        return
    if verdict.decision.not_judged:
        text += f"\nToo small to be judged: {'; '.join(verdict.decision.not_judged)}.\n"
    rows = [
        {
            "condition": reason.name,
            "champion": _format(reason.champion),
            "challenger": _format(reason.challenger),
            "bound": _format(reason.bound, "+"),
            "limit": _format(reason.limit, "+"),
            "result": "passed" if reason.passed else "FAILED",  # no column without a name is shown
        }
        for reason in verdict.decision.reasons
    ]
    create_table_artifact(rows, key="gate", description=text)


def _write_heading(verdict: Verdict) -> str:
    return f"{MODEL} version {verdict.version}"


def _format(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}"
