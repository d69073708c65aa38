"""The gate at work: both models' predictions, the decision, and the record of it in MLflow.

`flows.rescoring` brings the predictions, `mammo.gate.decide` decides. The verdict stands in the
version's tags, its table and the predictions among the artifacts of the version's run.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.process import CommandError
from flows.registry import MODEL
from mammo.errors import UserError
from mammo.params import Policy

if TYPE_CHECKING:
    from mammo.gate import Decision

Say = Callable[[str], None]
Word = Literal["promote", "refuse", "cannot be judged"]


NOBODY = "none"
"""What the tag `gate_against` says where there was no champion."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a version, and against which champion."""

    version: int
    champion: int | None  # None if there was none to compare with
    word: Word
    sentence: str
    decision: "Decision | None"  # None if there was none, or it was read back from the registry


def judge(
    root: Path, champion: ModelVersion, challenger: ModelVersion, policy: Policy, say: Say
) -> Verdict:
    """Hold a version against the champion and record what comes of it, whatever it is."""
    # They bring scikit-learn along: a second that a retrain with nothing to do need not wait for.
    from flows.rescoring import predictions
    from mammo.gate import decide

    pair = int(challenger.version), int(champion.version)
    try:
        breasts, unreadable = predictions(root, champion, challenger, policy.subgroups.by, say)
    except (UserError, CommandError) as error:
        verdict = Verdict(*pair, "cannot be judged", str(error), None)
        _record(challenger, verdict, policy, None)
        return verdict
    shared = ["patient_id", "laterality", "target", "probability"]
    decision = decide(
        breasts.rename(columns={"champion": "probability"})[shared],
        breasts.rename(columns={"challenger": "probability"}),
        policy,
    )
    verdict = Verdict(
        *pair,
        "promote" if decision.promote else "refuse",
        _sentence(decision, unreadable),
        decision,
    )
    _record(challenger, verdict, policy, breasts)
    return verdict


def without_champion(challenger: ModelVersion, policy: Policy, sentence: str) -> Verdict:
    """Record that a version could not be held against anything."""
    verdict = Verdict(int(challenger.version), None, "cannot be judged", sentence, None)
    _record(challenger, verdict, policy, None)
    return verdict


def recorded(challenger: ModelVersion, champion: int) -> Verdict | None:
    """The verdict that the registry keeps of a version, if it was reached against this champion."""
    tags = challenger.tags
    word = next((word for word in get_args(Word) if word == tags.get("gate_verdict")), None)
    if tags.get("gate_against") != str(champion) or word is None:
        return None
    return Verdict(int(challenger.version), champion, word, tags.get("gate_sentence", ""), None)


def _sentence(decision: "Decision", unreadable: int) -> str:
    """The decision in one sentence, with what speaks against it."""
    failures = "; ".join(reason.sentence for reason in decision.failures)
    size = f"{decision.breasts} test breasts, {decision.positives} of them positive"
    blind = f"; the champion could not read {unreadable} images" if unreadable else ""
    if failures:
        return f"{failures} ({size}{blind})"
    return f"all {len(decision.reasons)} conditions of the policy are met ({size}{blind})"


def _record(
    challenger: ModelVersion, verdict: Verdict, policy: Policy, breasts: pd.DataFrame | None
) -> None:
    """The verdict as tags of the version; the table and both models' predictions with its run."""
    client = MlflowClient()
    now = datetime.now(UTC)
    for name in challenger.tags:  # of a verdict against another champion
        if name.startswith("gate"):
            client.delete_model_version_tag(MODEL, challenger.version, name)
    tags = {
        "gate_policy": policy.model_dump_json(),
        "gate_date": now.isoformat(timespec="seconds"),
        "gate_sentence": verdict.sentence[:5000],
    }
    if verdict.decision is not None:
        for reason in verdict.decision.reasons:
            tags[_tag(reason.group, reason.check)] = (
                f"{'passed' if reason.passed else 'failed'}: {reason.sentence}"
            )
        run, folder = str(challenger.run_id), f"gates/{now:%Y-%m-%dT%H%M%S}"
        table = pd.DataFrame([asdict(reason) for reason in verdict.decision.reasons])
        client.log_table(run, table, f"{folder}/decision.json")
        assert breasts is not None
        client.log_text(run, breasts.to_csv(index=False), f"{folder}/breasts.csv")
    # These two come last: they say that the record is whole.
    against = NOBODY if verdict.champion is None else str(verdict.champion)
    tags |= {"gate_verdict": verdict.word, "gate_against": against}
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, challenger.version, name, value)


def _tag(group: str | None, check: str) -> str:
    """A tag's name for a reason: MLflow allows letters, digits and a few signs."""
    text = f"gate.{check}" if group is None else f"gate.{check}.{group}"
    return "".join(sign if sign.isalnum() or sign in "_-. " else "_" for sign in text)[:250]
