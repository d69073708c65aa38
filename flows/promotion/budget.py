"""The looks at a set of test women, counted in MLflow, and the error that each of them spends.

A look is one model whose scores on one set of test women are computed. It is recorded before they
are, and stays recorded, whatever becomes of the work: in the retrain right before the stage that
scores, and at the gate for what was made by hand. The same model on the same women is one look, as
often as it is asked. The records are tags of the experiment, one for each look.

A set is opened by the first look at it. Women that come later belong to it, until there are so many
new ones that the plan opens the next.
"""

import hashlib
import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml
from mlflow import MlflowClient

from flows.evidence.statements import hash_text
from flows.evidence.verify import hash_rules
from flows.pipeline.lock_and_cache import open_cache
from flows.processes.checked import parse_record
from flows.processes.folder_lock import hold_in_clone
from flows.processes.words import Say
from flows.promotion.networks import read_networks, read_predictor_settings
from flows.promotion.women import Women, describe_women, read_test_images
from flows.snapshots.snapshot import Snapshot
from flows.tracking import registry
from flows.tracking.mutex import hold_across_clones
from mammo.assurance.plan import Looks, Plan
from mammo.base.errors import UserError

_LOOK, _WOMEN = "look.", "look_women."
_SHORT = 16  # hexadecimal digits of a digest in the name of a tag
_CHUNK = 500  # women whose hashes go into one tag: a tag of an experiment holds 5,000 characters

Hashes = frozenset[str]


class NoLookLeftError(UserError):
    """The plan allows no further model to be scored on these test women."""


@dataclass(frozen=True)
class Look:
    """One look, as it is recorded."""

    model: str  # SHA-256 of the networks and the settings that a predictor reads
    test_women: str  # SHA-256 of their ids and labels
    set: int  # which set of test women, from 1
    number: int  # which look at this set, from 1
    error: float  # that it spends
    women: int
    date: str  # ISO 8601, UTC
    rules: str = ""  # digest of what the plan judges by; empty in records from before there was one

    @property
    def confidence(self) -> float:
        """Of the one-sided bounds at this look."""
        return 1 - self.error

    @property
    def sentence(self) -> str:
        """The look in words."""
        return f"look {self.number} at set {self.set} of test women ({self.women} women)"


def take_look(root: Path, snapshot: Snapshot, plan: Plan, say: Say) -> Look:
    """Count the look that a snapshot's model is about to have, or find it if it was counted.

    Args:
        root: the project.
        snapshot: whose networks are trained; it needs no scores yet.
        plan: how many looks there may be, what they spend, and by which rules they judge.
        say: gets a line if something must be fetched, or a look is counted.

    Raises:
        NoLookLeftError: if the plan allows none; nothing is recorded then.
        UserError: if networks or test women cannot be read, or a record was changed.
    """
    women = describe_women(read_test_images(root, snapshot, open_cache(root), say))
    model = name_model(snapshot)
    experiment = registry.open_store(root)
    digest = hash_text(women.labels)
    with hold_in_clone(root, "looks"), hold_across_clones("looks"):
        known = _read_tags(experiment)
        looks = _read_looks(known)
        mine = [look for look in looks if (look.model, look.test_women) == (model, digest)]
        if mine:
            return mine[0]
        look = find_next_look(looks, _read_women(known), model, women, plan.looks)
        look = replace(look, rules=digest_rules(plan))
        _record(experiment, look, women)
    say(f"{look.sentence}: counted, {plan.looks.number - look.number} left")
    return look


def digest_rules(plan: Plan) -> str:
    """The digest of what a plan judges by, as `verify` computes it from a signed plan."""
    return hash_rules(plan.model_dump(mode="json"))


def find_other_rules(look: Look, plan: Plan) -> str | None:
    """Why a look may not be judged by a plan: other rules were in force when it was taken.

    Who saw scores could choose rules that suit them. Records from before are silent about it.
    """
    if not look.rules or look.rules == digest_rules(plan):
        return None
    return (
        f"this model was looked at on {look.date[:10]}, at {look.sentence}, under other rules than "
        f"plan.yaml has now (under policy, unread or reference): rules that were chosen after a "
        f"look prove nothing"
    )


def find_next_look(
    looks: Sequence[Look],
    women_of: Mapping[str, Hashes],
    model: str,
    women: Women,
    plan: Looks,
) -> Look:
    """The next look: at which set of test women, which one, and with which error.

    Args:
        looks: all so far.
        women_of: hashes of the women of each set's digest.
        model: digest of the model that is to be scored.
        women: on whom.
        plan: how many looks there may be, and what they spend.

    Raises:
        NoLookLeftError: if there is none; the sentence says how many new women open the next set.
    """
    current = max((look.set for look in looks), default=0)
    own = [look for look in looks if look.set == current]
    opened = next((look for look in own if look.number == 1), None)
    # Those who had been seen when this set was opened.
    before = {look.test_women for look in looks if look.set < current}
    seen: set[str] = set().union(*(women_of.get(digest, frozenset()) for digest in before))
    if opened is not None:
        seen |= women_of.get(opened.test_women, frozenset())
    new = len(hash_women(women.ids) - seen)
    wanted = math.ceil(plan.renew * opened.women - 1e-9) if opened is not None else 0
    if opened is None or new >= wanted:
        current, own = current + 1, []
    number = max((look.number for look in own), default=0) + 1
    spent = sum(look.error for look in own)
    where = f"at set {current} of test women ({len(women.ids)} women)"
    if plan.sets is not None and current > plan.sets:
        raise NoLookLeftError(
            f"no look is left {where}: looks.sets of plan.yaml allows {plan.sets} sets over the "
            f"plan's life, and no new women open another"
        )
    if plan.sets is not None and current == plan.sets:
        more = f"it is the last of the {plan.sets} sets that looks.sets allows"
    else:
        more = f"{wanted - new} more new test women open the next set"
    if number > plan.number:
        raise NoLookLeftError(
            f"no look is left {where}: all {plan.number} that looks.number of plan.yaml allows are "
            f"taken; {more}"
        )
    error = plan.error_of(number)
    if spent + error > plan.error_of_set * (1 + 1e-9):
        raise NoLookLeftError(
            f"no look is left {where}: its {len(own)} looks have spent {spent:.3g} of the error of "
            f"{plan.error_of_set:.3g} that plan.yaml allows, and look {number} would spend "
            f"{error:.3g}; {more}"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Look(model, hash_text(women.labels), current, number, error, len(women.ids), now)


def list_looks(root: Path) -> list[Look]:
    """Every look so far, by set and number.

    Raises:
        UserError: if a record was changed.
    """
    return _read_looks(_read_tags(registry.open_store(root)))


def name_model(snapshot: Snapshot) -> str:
    """The digest of a snapshot's model: of both networks, and of the settings that it reads."""
    networks = read_networks(snapshot)
    if not networks:  # another pipeline: what it is made of is all that is known of its model
        made_of = {name: text for name, text in snapshot.files.items() if name == "data.dvc"}
        networks = {"commit": snapshot.commit, **made_of}
    settings = read_predictor_settings(snapshot)
    aggregate = (yaml.safe_load(snapshot.files["params.yaml"]).get("evaluate") or {}).get(
        "aggregate"
    )
    content = {"networks": networks, "settings": settings, "aggregate": aggregate}
    return hash_text(json.dumps(content, sort_keys=True, separators=(",", ":")))


def hash_women(ids: Sequence[str]) -> Hashes:
    """A short hash of each woman's id: the registry tells who is new by it, and names nobody."""
    found = (hashlib.sha256(f"woman/{woman}".encode()).digest()[:6] for woman in ids)
    return frozenset(urlsafe_b64encode(part).decode() for part in found)


def _record(experiment: str, look: Look, women: Women) -> None:
    """Write a look, its women first: a look without them would leave everybody new."""
    client = MlflowClient()
    hashes = sorted(hash_women(women.ids))
    for start in range(0, len(hashes), _CHUNK):
        name = f"{_WOMEN}{look.test_women[:_SHORT]}.{start // _CHUNK}"
        client.set_experiment_tag(experiment, name, ".".join(hashes[start : start + _CHUNK]))
    client.set_experiment_tag(experiment, _name_tag(look), json.dumps(asdict(look)))


def _name_tag(look: Look) -> str:
    return f"{_LOOK}{look.test_women[:_SHORT]}.{look.model[:_SHORT]}"


def _read_tags(experiment: str) -> dict[str, str]:
    return dict(MlflowClient().get_experiment(experiment).tags)


def _read_looks(tags: Mapping[str, str]) -> list[Look]:
    found = [_parse(name, text) for name, text in tags.items() if name.startswith(_LOOK)]
    return sorted(found, key=lambda look: (look.set, look.number, look.date))


def _parse(name: str, text: str) -> Look:
    where = f"the tag {name} of the experiment {registry.EXPERIMENT} in MLflow"
    return parse_record(Look, text, f"{where} is no record of a look", "restore the record")


def _read_women(tags: Mapping[str, str]) -> dict[str, Hashes]:
    """The hashes of the women of each look's set, by the set's digest."""
    found: dict[str, set[str]] = {}
    for name, text in tags.items():
        if name.startswith(_WOMEN):
            short = name.removeprefix(_WOMEN).partition(".")[0]
            found.setdefault(short, set()).update(text.split("."))
    return {
        look.test_women: frozenset(found.get(look.test_women[:_SHORT], ()))
        for look in _read_looks(tags)
    }
