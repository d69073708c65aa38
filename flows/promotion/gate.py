"""The gate at work: both models' predictions, the decision, and the record of it in MLflow.

`flows.promotion.rescoring` brings the predictions, `mammo.assurance.promotion_rule.decide`
decides. The verdict stands in the version's tags, its table and the predictions among the artifacts
of the version's run.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from flows.pipeline.lock_and_cache import outs_of, read_lock
from flows.processes.follow import CommandError
from flows.processes.run_git import NoAnswerError
from flows.processes.words import Say
from flows.snapshots.snapshot import Snapshot
from flows.tracking.register import NETWORKS
from flows.tracking.registry import MODEL, find_snapshot, run_of
from mammo.base.atomic_files import NETWORK_FILES
from mammo.base.errors import UserError
from mammo.base.settings import Policy

if TYPE_CHECKING:
    from mammo.assurance.promotion_rule import Decision

Word = Literal["promote", "refuse", "cannot be judged"]

_SETTINGS = ("threads", "preprocess", "detector", "crop", "classifier")  # that a predictor reads

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
    root: Path, champion: ModelVersion, challenger: ModelVersion, policy: Policy, say: Say
) -> Verdict:
    """Compare a version with the champion and record the verdict, whatever it is.

    Args:
        root: the project.
        champion: the version that serves.
        challenger: the version that may become champion.
        policy: the conditions.
        say: gets a line for each step that takes long.

    Raises:
        NoAnswerError: if git's remote does not answer: that is no verdict.
    """
    # Here, since they import scikit-learn: a second that a retrain with nothing to do saves.
    from flows.promotion.rescoring import predictions
    from mammo.assurance.promotion_rule import decide

    pair = int(challenger.version), int(champion.version)
    shared = ["patient_id", "laterality", "target", "probability"]
    try:
        found = predictions(root, champion, challenger, policy.subgroups.by, say)
        decision = decide(
            found.breasts.rename(columns={"champion": "probability"})[shared],
            found.breasts.rename(columns={"challenger": "probability"}),
            policy,
        )
    except NoAnswerError:
        raise
    except (UserError, CommandError, ValueError) as error:
        return _record(challenger, Verdict(*pair, "cannot be judged", str(error), None), policy)
    sentence = _compose_sentence(decision, found.unreadable)
    if found.same:
        sentence = (
            f"its networks and settings are those of the champion, version {champion.version}, "
            f"byte for byte, so nothing was scored again: {sentence}"
        )
    verdict = Verdict(*pair, _word(decision), sentence, decision)
    return _record(challenger, verdict, policy, found.breasts)


def judge_first(root: Path, version: ModelVersion, policy: Policy, say: Say) -> Verdict:
    """Compare a version with the policy's floors and record the verdict, if there is no champion.

    Raises:
        NoAnswerError: as `judge`.
    """
    from flows.promotion.rescoring import own_predictions
    from mammo.assurance.promotion_rule import check_floors

    number = int(version.version)
    try:
        breasts = own_predictions(root, version, say)
        decision = check_floors(breasts, policy)
    except NoAnswerError:
        raise
    except (UserError, CommandError, ValueError) as error:
        sentence = f"there was no champion yet, and the floors cannot be checked: {error}"
        verdict = Verdict(number, None, "cannot be judged", sentence, None)
        return _record(version, verdict, policy)
    sentence = f"there was no champion yet: {_compose_sentence(decision, 0)}"
    verdict = Verdict(number, None, _word(decision), sentence, decision)
    return _record(version, verdict, policy, breasts)


def record_uncompared(
    version: ModelVersion, champion: int | None, word: Word, policy: Policy, sentence: str
) -> Verdict:
    """Record a verdict that was reached without a comparison."""
    verdict = Verdict(int(version.version), champion, word, sentence, None)
    return _record(version, verdict, policy)


def read_networks(snapshot: Snapshot) -> dict[str, str]:
    """The files of both networks and DVC's hashes of them, as a snapshot's dvc.lock names them."""
    wanted = {f"{folder}/{name}" for folder in NETWORKS.values() for name in NETWORK_FILES}
    outs = outs_of(read_lock(snapshot))
    return {path: md5 for path, md5 in outs.items() if path in wanted}


def read_networks_of(version: ModelVersion) -> dict[str, str]:
    """The same of a registered version; empty if its records cannot be read."""
    try:
        snapshot = find_snapshot(version)
        return read_networks(snapshot) if snapshot is not None else {}
    except UserError:
        return {}  # its records are damaged; `mammoflow audit` says how


def predict_alike(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots made the same predictor: same networks, and same settings for it."""
    settings = [yaml.safe_load(snapshot.files["params.yaml"]) for snapshot in (one, other)]
    used = [{key: found.get(key) for key in _SETTINGS} for found in settings]
    return (
        bool(read_networks(one))
        and read_networks(one) == read_networks(other)
        and used[0] == used[1]
    )


def find_verdict(challenger: ModelVersion, champion: int) -> Verdict | None:
    """The verdict in the registry on a version, if it was reached against this champion."""
    tags = challenger.tags
    word = next((word for word in get_args(Word) if word == tags.get("gate_verdict")), None)
    if tags.get("gate_against") != str(champion) or word is None:
        return None
    return Verdict(int(challenger.version), champion, word, tags.get("gate_sentence", ""), None)


def _word(decision: "Decision") -> Word:
    return "promote" if decision.promote else "refuse"


def _compose_sentence(decision: "Decision", unreadable: int) -> str:
    """The decision in one sentence, with the conditions that failed."""
    failures = "; ".join(reason.sentence for reason in decision.failures)
    size = f"{decision.breasts} test breasts, {decision.positives} of them positive"
    blind = f"; the champion could not read {unreadable} images" if unreadable else ""
    if failures:
        return f"{failures} ({size}{blind})"
    met = (
        "the policy's floor is met"
        if len(decision.reasons) == 1
        else (f"all {len(decision.reasons)} conditions of the policy are met")
    )
    return f"{met} ({size}{blind})"


def _record(
    challenger: ModelVersion,
    verdict: Verdict,
    policy: Policy,
    breasts: pd.DataFrame | None = None,
) -> Verdict:
    """Write a verdict to the version's tags, its table and predictions to the run; return it."""
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
            tags[_name_tag(reason.group, reason.check)] = (
                f"{'passed' if reason.passed else 'failed'}: {reason.sentence}"
            )
        run, folder = run_of(challenger), f"gates/{now:%Y-%m-%dT%H%M%S}"
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
    shown = table[["check", "group", "champion", "challenger", "bound", "limit", "passed"]]
    return (
        f"<!doctype html><title>Gate</title>\n<h2>{MODEL} version {verdict.version} against "
        f"{against}: {verdict.word}</h2>\n<p>{escape(verdict.sentence)}</p>\n"
        f"{shown.to_html(index=False, na_rep='')}\n"
    )


def _name_tag(group: str | None, check: str) -> str:
    """A tag's name for a reason: MLflow allows letters, digits and a few signs."""
    text = f"gate.{check}" if group is None else f"gate.{check}.{group}"
    return "".join(sign if sign.isalnum() or sign in "_-. " else "_" for sign in text)[:250]
