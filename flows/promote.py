"""Promotion: a version against the champion, and the alias `champion` moved or left.

    mammoflow promote 3                          # the gate decides, as `policy` in params.yaml says
    mammoflow promote 3 --reason "..."           # you decide; the gate's verdict is on record

A retrain does the first of the two for each version that it registers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow.entities.model_registry import ModelVersion
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Failed

from flows import aliases, registry
from flows.gate import NOBODY, Verdict, judge, recorded, without_champion
from flows.notify import notify, notify_failure
from flows.process import CommandError
from flows.provenance import find_version
from flows.registry import CHALLENGER, CHAMPION, MODEL
from mammo.errors import UserError
from mammo.params import Policy, load_params

Outcome = Literal["promoted", "waits for approval", "refused", "not judged"]


@dataclass(frozen=True)
class Promotion:
    """What became of a version at the gate."""

    version: int
    champion: int | None  # before; None if there was none
    outcome: Outcome
    verdict: Verdict | None  # None if there was no champion to compare with
    sentence: str


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE)
def settle(root: Path, version: ModelVersion, policy: Policy) -> Promotion:
    """Let the gate judge a version, and act upon it as far as the policy allows."""
    champion, absence = _champion()
    if champion is None:
        sentence = f"{absence}, so nothing can be compared: {_yourself(version)}"
        verdict = without_champion(version, policy, sentence)
        return _told(version, None, "not judged", verdict, sentence)
    verdict = judge(root, champion, version, policy, get_run_logger().info)
    _show_verdict(verdict)
    if verdict.word == "cannot be judged":
        outcome: Outcome = "not judged"
    elif verdict.word == "refuse":
        outcome = "refused"
    elif policy.approve == "manual":
        outcome = "waits for approval"
    else:
        outcome, number = "promoted", int(version.version)
        try:
            aliases.check_unmoved(number, verdict.champion)
        except UserError as error:
            return _told(version, verdict.champion, "not judged", verdict, str(error))
        aliases.crown(number, aliases.AUTOMATIC, f"the gate: {verdict.sentence}")
    return _told(version, verdict.champion, outcome, verdict, verdict.sentence)


def unsettled(version: ModelVersion) -> bool:
    """Whether a challenger never met a champion at the gate: the retrain that made it was cut
    short, or there was no champion then.

    A verdict against an earlier champion counts: people may have gone back behind it since.
    """
    now = aliases.current()
    if not now.get(CHALLENGER) == int(version.version) != now.get(CHAMPION):
        return False
    against = version.tags.get("gate_against")
    return against is None or (against == NOBODY and _champion()[0] is not None)


@flow(name="promote", on_failure=[notify_failure], on_crashed=[notify_failure])
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
        policy = load_params(root / "params.yaml").policy
        registry.open_store(root)
        found, (champion, _) = find_version(version), _champion()
        if champion is not None and champion.version == found.version:
            raise UserError(f"version {found.version} is the champion already")
        if reason is None:
            return settle(root, found, policy)
        return _override(root, found, policy, aliases.checked_reason(reason))
    except (UserError, CommandError) as error:
        return Failed(message=str(error))
    except registry.FAULTS as error:
        return Failed(message=registry.in_words(error))


def _override(root: Path, version: ModelVersion, policy: Policy, reason: str) -> Promotion:
    """A person's decision: the gate is heard, and overruled if need be."""
    who, number = aliases.person(root), int(version.version)
    now, (champion, _) = aliases.current().get(CHAMPION), _champion()
    verdict = None
    if champion is not None:
        verdict = recorded(version, int(champion.version))
        if verdict is None:
            verdict = judge(root, champion, version, policy, get_run_logger().info)
        _show_verdict(verdict)
    aliases.check_unmoved(number, now)
    aliases.crown(number, who, reason)
    gate = f" (the gate: {verdict.word})" if verdict is not None else ""
    return _told(version, now, "promoted", verdict, f"{who}: {reason}{gate}")


def roll_back(root: Path, reason: str) -> tuple[int, int]:
    """Return to the previous champion; return the version that leaves and the one that returns.

    Raises:
        UserError: if there is none, if git does not know who asks, or if the reason is empty.
    """
    why, who = aliases.checked_reason(reason), aliases.person(root)
    registry.open_store(root)
    leaves, returns = aliases.roll_back(who, why)
    notify(f"{MODEL}: rolled back from version {leaves} to {returns}", f"{who}: {why}")
    return leaves, returns


def _champion() -> tuple[ModelVersion | None, str]:
    """The champion; or None, and in words what became of it."""
    number = aliases.current().get(CHAMPION)
    if number is not None:
        return registry.find(number), f"the champion, version {number}, was deleted in MLflow"
    past = [made.version for made in aliases.history() if made.alias == CHAMPION]
    if not past:
        return None, "there is no champion"
    return None, (
        f"there is no champion: version {past[-1]} was, until it or its alias was deleted in MLflow"
    )


def _yourself(version: ModelVersion) -> str:
    return f'decide yourself with `mammoflow promote {version.version} --reason "..."`'


def _told(
    version: ModelVersion,
    champion: int | None,
    outcome: Outcome,
    verdict: Verdict | None,
    sentence: str,
) -> Promotion:
    """The promotion, after everybody who listens was told of it."""
    heading = f"{MODEL} version {version.version}: {outcome}"
    get_run_logger().info("%s: %s", heading, sentence)
    notify(heading, sentence)
    return Promotion(int(version.version), champion, outcome, verdict, sentence)


def _show_verdict(verdict: Verdict) -> None:
    """The verdict as a page in Prefect: each condition with its numbers."""
    text = (
        f"## {MODEL} version {verdict.version} against the champion, version {verdict.champion}\n\n"
        f"**{verdict.word}**: {verdict.sentence}\n"
    )
    if verdict.decision is not None:
        text += (
            "\n| condition | champion | challenger | bound | limit | |\n"
            "| --- | --- | --- | --- | --- | --- |\n"
        )
        for reason in verdict.decision.reasons:
            bound = "" if reason.bound is None else f"{reason.bound:+.4f}"
            text += (
                f"| {reason.name} | {reason.champion:.4f} | {reason.challenger:.4f} | {bound} "
                f"| {reason.limit:+.4f} | {'passed' if reason.passed else '**failed**'} |\n"
            )
        if verdict.decision.not_judged:
            text += f"\nToo small to be judged: {'; '.join(verdict.decision.not_judged)}.\n"
    create_markdown_artifact(text, key="gate", description=f"{MODEL} version {verdict.version}")
