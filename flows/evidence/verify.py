"""Verify the signed evidence of a model version, with Python and `cryptography` alone.

    python verify.py                        # the export that this file lies in
    python verify.py DIR --keys KEYS --trust KEYID --head NUMBER:DIGEST

Each export has a copy of this file. It imports nothing of the project, opens no connection, and
runs no code of the model. Whoever could have rewritten the export could have rewritten this copy
and the keys in it, too: who needs to be sure takes this file from a clone that they trust, and
names by `--trust` the ids of the keys as their owners told them. Who wrote down number and digest
of the last line at an earlier time names them by `--head`: lines that were taken out since show.

It exits with 0 if the evidence holds, 1 if it does not hold, 2 if the version is not signed.
"""

import argparse
import base64
import binascii
import hashlib
import json
import marshal
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
POLICY = "urn:mammoflow:policy:v1"
EVALUATION = "urn:mammoflow:evaluation:v1"
DECISION = "urn:mammoflow:decision:v1"
DOCUMENTS = "urn:mammoflow:documents:v1"

DECISIONS = ("promotion", "refusal", "approval", "rollback")

ROLES: Mapping[str, Sequence[str]] = {
    PROVENANCE: ("builder",),
    POLICY: ("builder", "approver"),
    EVALUATION: ("builder", "approver"),
    "promotion": ("builder", "approver"),
    "refusal": ("builder", "approver"),
    "approval": ("approver",),
    "rollback": ("approver",),
    SUMMARY: ("auditor",),
    DOCUMENTS: ("builder", "approver"),
}
"""Whose keys may sign what; a decision by its kind."""

POSITION = "mammoflow_ledger"
"""The field of each predicate that says where the line stands in the ledger."""

LEDGER, MANIFEST, MODEL, SNAPSHOT = "ledger.intoto.jsonl", "manifest.json", "model", "snapshot"
PAPERS = "documents"
"""The names of an export's parts."""

HEADER = 16
"""Bytes of a .pyc file before its code (PEP 552)."""

WITH_BUILD, LATER = "with the build", "later"
"""When a provenance was signed."""

LONGEST = 1_000_000  # lines of a ledger

RECORD = f"{SNAPSHOT}/snapshot.json"
"""The snapshot whole, in an export and in MLflow."""

_HEX = re.compile(r"[0-9a-f]{64}")
_CLOCKS = timedelta(minutes=1)  # by which the clocks of two machines may differ


@dataclass(frozen=True)
class PublicKey:
    """A public key with its owner; `withdrawn` is a time, ISO 8601, UTC, or None."""

    name: str
    role: str
    keyid: str
    public: str  # hex, 32 bytes
    withdrawn: str | None = None


@dataclass(frozen=True)
class Line:
    """A line of the ledger: a DSSE envelope with one signature."""

    raw: str  # without its line end
    payload: bytes
    keyid: str
    signature: bytes
    kind: str  # what ROLES calls it
    subject: Mapping[str, str]  # names and SHA-256
    predicate: Mapping[str, Any]
    number: int  # 1, 2, 3 ...
    previous: str | None  # digest of the line before it
    date: str  # ISO 8601, UTC
    version: int | None  # None for a policy, which several versions may share
    policy: str | None  # digest of the line with the policy that was in force

    @property
    def digest(self) -> str:
        """SHA-256 of the line, as hex."""
        return hash_bytes(self.raw.encode())

    @property
    def name(self) -> str:
        """The line in words."""
        return f"line {self.number} ({describe(self)})"


@dataclass
class VerificationReport:
    """What a verification found: contradictions, what a reader should know, and whose lines."""

    version: int
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    signed: bool = False
    head: str | None = None  # number and digest of the last line, for `--head`

    @property
    def status(self) -> int:
        """The exit status."""
        return 1 if self.wrong else 0 if self.signed else 2

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if self.wrong:
            return f"The evidence of version {self.version} does not hold: {self.wrong[0]}."
        if self.signed:
            return f"The signed evidence of version {self.version} holds."
        return f"Version {self.version} is unsigned."


def write_canonical(content: Any) -> bytes:
    """JSON as bytes, in one form only: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: if a number is not finite.
    """
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def hash_bytes(content: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(content).hexdigest()


def is_compiled(name: str) -> bool:
    """Whether a file, by its path in a folder, is compiled Python."""
    path = Path(name)
    return "__pycache__" in path.parts or path.suffix in (".pyc", ".pyo")


def find_compiled(folder: Path) -> list[str]:
    """The paths of compiled Python below a folder: Python runs it instead of the source."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if is_compiled(name))


def find_planted(folder: Path) -> list[str]:
    """Those of `find_compiled` that are neither what their source gives nor another Python's.

    MLflow leaves bytecode in a registry on a disk whenever it loads a model there. The codes are
    compared, and not the bytes: `marshal` writes one code in more than one way.
    """
    return [name for name in find_compiled(folder) if not _is_harmless(folder / name)]


def _is_harmless(path: Path) -> bool:
    """Whether bytecode is what its source gives; another Python's is never run by this one."""
    named = re.fullmatch(r"(.+)\.(cpython-\d+)\.pyc", path.name)
    if path.parent.name != "__pycache__" or named is None:
        return False
    source = path.parent.parent / f"{named[1]}.py"
    if not source.is_file():
        return False
    if named[2] != sys.implementation.cache_tag:
        return True
    try:
        found = marshal.loads(path.read_bytes()[HEADER:])  # noqa: S302  (it is read, and never run)
        return bool(found == compile(source.read_bytes(), str(source), "exec", dont_inherit=True))
    except (ValueError, EOFError, TypeError, SyntaxError):
        return False


def describe_compiled(found: Sequence[str], whose: str) -> Iterator[str]:
    """A sentence for compiled Python, if there is any, which nobody signed."""
    if found:
        more = f" and {len(found) - 3} more files" if len(found) > 3 else ""
        yield (
            f"{whose} holds compiled code that nobody signed: {', '.join(found[:3])}{more}: delete "
            f"it, since Python makes it anew from the source"
        )


def hash_folder(folder: Path) -> dict[str, str]:
    """SHA-256 of each file under a folder, by its path in it; see `find_compiled` for the others.

    Raises:
        ValueError: if there is a link.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ValueError(f"{name} is a link")
        if path.is_file() and not is_compiled(name):
            found[name] = hash_bytes(path.read_bytes())
    return found


def digest_model(files: Mapping[str, str]) -> str:
    """One digest of a model: SHA-256 of the list of its files with theirs."""
    return hash_bytes(write_canonical(dict(files)))


def compute_key_id(public: str) -> str:
    """The id of an Ed25519 key: SHA-256 of its canonical JSON, as securesystemslib computes it.

    Args:
        public: the public half, as hex.
    """
    return hash_bytes(
        write_canonical({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
    )


def read_key(path: Path) -> PublicKey:
    """A public key of a folder `keys/`.

    Raises:
        ValueError: if the file is no such key; the sentence names the file.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        key = PublicKey(
            str(said["name"]),
            str(said["role"]),
            str(said["keyid"]),
            str(said["keyval"]["public"]),
            said["withdrawn"],
        )
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public))
        if key.withdrawn is not None:
            datetime.fromisoformat(key.withdrawn)
        if (said["keytype"], said["scheme"]) != ("ed25519", "ed25519") or len(said) != 7:
            raise ValueError("it is of another kind")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} in keys/ is no public key ({error!r})") from None
    if key.keyid != compute_key_id(key.public) or path.stem != key.name:
        raise ValueError(f"{path.name} in keys/ was changed: its name or id is not the key's")
    return key


def read_keys(folder: Path) -> tuple[dict[str, PublicKey], list[str]]:
    """The public keys of a folder by their ids, and a sentence for each file that is none."""
    found: dict[str, PublicKey] = {}
    faults = []
    for path in sorted(folder.glob("*.json")):
        try:
            key = read_key(path)
        except ValueError as error:
            faults.append(str(error))
        else:
            found[key.keyid] = key
    return found, faults


def read_line(raw: str) -> Line:
    """Read a line of a ledger. Its signature is not verified.

    Raises:
        ValueError: if it is no line of a ledger.
    """
    try:
        envelope = json.loads(raw)
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        statement = json.loads(payload)
        position = statement["predicate"][POSITION]
        kind = str(statement["predicateType"])
        line = Line(
            raw=raw,
            payload=payload,
            keyid=str(signature["keyid"]),
            signature=base64.b64decode(signature["sig"], validate=True),
            kind=str(statement["predicate"]["kind"]) if kind == DECISION else kind,
            subject={
                str(part["name"]): str(part["digest"]["sha256"]) for part in statement["subject"]
            },
            predicate=dict(statement["predicate"]),
            number=int(position["line"]),
            previous=position["previous"],
            date=str(position["date"]),
            version=None if position["version"] is None else int(position["version"]),
            policy=position["policy"],
        )
        datetime.fromisoformat(line.date)
        form = (envelope["payloadType"], statement["_type"])
        as_signed = (
            write_canonical(envelope).decode() == raw and write_canonical(statement) == payload
        )
        if not 0 < line.number <= LONGEST:
            raise ValueError("its number is out of range")
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise ValueError(f"is no attestation ({type(error).__name__}: {error})") from None
    if form != (PAYLOAD_TYPE, STATEMENT) or line.kind not in ROLES:
        raise ValueError("is an attestation of a kind that is not known")
    if not as_signed:
        raise ValueError("is not written as it was signed")
    return line


def split_lines(text: str) -> list[str]:
    """The lines of a ledger's text; empty ones count, except after the last line end."""
    return text.removesuffix("\n").split("\n") if text else []


def describe(line: Line) -> str:
    """What a line attests, in words."""
    kinds = {
        PROVENANCE: "provenance",
        POLICY: "policy",
        EVALUATION: "evaluation",
        SUMMARY: "audit verdict",
        DOCUMENTS: "documents",
    }
    what = kinds.get(line.kind, line.kind)
    return what if line.version is None else f"{what} of version {line.version}"


def select_lines(ledger: Iterable[Line], version: int) -> list[Line]:
    """The lines of a version's own file: its own, and the policies that they name."""
    ledger = list(ledger)
    named = {line.policy for line in ledger if line.version == version}
    return [line for line in ledger if line.version == version or line.digest in named]


def is_signed_by(line: Line, key: PublicKey) -> bool:
    """Whether a key made the signature of a line."""
    kind = PAYLOAD_TYPE.encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(line.payload), line.payload)
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public))
        public.verify(line.signature, signed)
    except InvalidSignature:
        return False
    return True


def check_signatures(
    ledger: Iterable[Line], keys: Mapping[str, PublicKey], trusted: Collection[str]
) -> Iterator[str]:
    """Find lines that no key signed which may sign them.

    Args:
        ledger: the lines.
        keys: those of `keys/`, by their ids.
        trusted: the ids of the keys that the reader trusts; all of `keys` if there are none.
    """
    for line in ledger:
        key = keys.get(line.keyid)
        if key is None:
            yield f"{line.name} is signed by the key {line.keyid[:16]}, which is not in keys/"
            continue
        whose = f"the key {key.name} ({key.role}, {key.keyid[:16]})"
        if not is_signed_by(line, key):
            yield f"{line.name} was changed: the signature of {whose} does not fit it"
        elif trusted and key.keyid not in trusted:
            yield f"{line.name} is signed by {whose}, which you did not name as trusted"
        elif key.role not in ROLES[line.kind]:
            needed = " or ".join(ROLES[line.kind])
            yield f"{line.name} is signed by {whose}, but needs a key of {needed}"
        elif key.withdrawn is not None and _read_time(line.date) >= _read_time(key.withdrawn):
            yield (
                f"{line.name} of {line.date} is signed by {whose}, which was withdrawn from "
                f"{key.withdrawn} on"
            )


def check_chain(ledger: Sequence[Line], head: tuple[int, str] | None = None) -> Iterator[str]:
    """Find lines that were taken out, put in, doubled, put elsewhere or dated back.

    Args:
        ledger: the lines, as they stand.
        head: number and digest of the last line, as it is known from elsewhere.
    """
    seen: dict[str, Line] = {}
    for line in ledger:
        if line.digest in seen:
            yield f"{line.name} is there twice"
        seen[line.digest] = line
    lines = list(seen.values())
    by_number: dict[int, list[Line]] = {}
    for line in lines:
        by_number.setdefault(line.number, []).append(line)
    for first, second in pairwise(lines):
        if second.number < first.number:
            yield f"{second.name} stands after {first.name}: lines were put in another order"
    for one, other in pairwise([0, *sorted(by_number)]):
        if other == one + 2:
            yield f"line {one + 1} was taken out of the ledger"
        elif other > one + 2:
            yield f"lines {one + 1} to {other - 1} were taken out of the ledger"
    before: Line | None = None
    for line in sorted(lines, key=lambda line: line.number):
        if len(by_number[line.number]) > 1:
            yield f"{line.name} is one of several with this number: a line was put in"
        followed = [found.digest for found in by_number.get(line.number - 1, [])]
        if (line.number == 1 and line.previous is not None) or (
            followed and line.previous not in followed
        ):
            yield f"{line.name} follows another line than the {line.number - 1} that is there"
        if before is not None and _read_time(line.date) < _read_time(before.date):
            yield f"{line.name} is dated {line.date}, earlier than {before.name} before it"
        before = line
    if head is not None and head[1] not in seen:
        yield f"line {head[0]}, the last that the registry names, was taken out of the ledger"


def check_version_file(ledger: Sequence[Line], version: int, text: str) -> Iterator[str]:
    """Find where a version's own file is not what the ledger has of the version."""
    wanted, found = select_lines(ledger, version), split_lines(text)
    name = f"attestations/v{version}.intoto.jsonl"
    known = {line.raw: line for line in ledger}
    strange = [raw for raw in found if raw not in known]
    if strange:
        yield f"{name} has {len(strange)} lines that the ledger has not"
    for line in wanted:
        if line.raw not in found:
            yield f"{name} lacks {line.name}"
        elif found.count(line.raw) > 1:
            yield f"{name} has {line.name} twice"
    for raw in found:
        if raw in known and known[raw] not in wanted:
            yield f"{name} has {known[raw].name}, which is not of this version"
    if sorted(found) == sorted(line.raw for line in wanted) and found != [x.raw for x in wanted]:
        yield f"the lines of {name} were put in another order"


def check_model(provenance: Line, files: Mapping[str, str]) -> Iterator[str]:
    """Find files of a model that are not the ones that its provenance names.

    Args:
        provenance: the line.
        files: SHA-256 of each file, by its path in the model's folder.
    """
    yield from _compare_with_line(provenance, files, "the model has", "lacks", "holds")


def check_documents(documents: Line, files: Mapping[str, str]) -> Iterator[str]:
    """Find files of the documents that are not the ones that their line names.

    Args:
        documents: the last such line about the version: who renews documents signs them anew.
        files: SHA-256 of each file, by its path in the documents' folder.
    """
    yield from _compare_with_line(documents, files, "the documents have", "lack", "hold")


def _compare_with_line(
    line: Line, files: Mapping[str, str], has: str, lacks: str, holds: str
) -> Iterator[str]:
    signed, who = line.subject, has.rpartition(" ")[0]
    shared = sorted(signed.keys() & files.keys())
    other = [name for name in shared if signed[name] != files[name]]
    for names, what in (
        (other, f"{has} other bytes than {{}} names"),
        (sorted(signed.keys() - files.keys()), f"{who} {lacks} what {{}} names"),
        (sorted(files.keys() - signed.keys()), f"{who} {holds} what {{}} does not name"),
    ):
        if names:
            more = f" and {len(names) - 3} more files" if len(names) > 3 else ""
            yield f"{what.format(line.name)}: {', '.join(names[:3])}{more}"


def check_statements(ledger: Sequence[Line], version: int) -> Iterator[str]:
    """Find where a version's lines contradict each other: policy before look, and one model."""
    own = [line for line in ledger if line.version == version]
    made = [line for line in own if line.kind == PROVENANCE]
    if len(made) > 1:
        yield f"version {version} has {len(made)} provenances: {made[0].name}, {made[1].name}"
    by_digest = {line.digest: line for line in ledger}
    if made:
        model = digest_model(made[0].subject)
        for line in own:
            about_model = line.kind not in (PROVENANCE, DOCUMENTS)
            if about_model and list(line.subject.values()) != [model]:
                yield f"{line.name} is about another model than {made[0].name}"
    for line in own:
        if line.kind == EVALUATION:
            yield from _check_policy(line, made[0] if made else None, by_digest)
        elif line.kind == "promotion":
            judged = by_digest.get(str(line.predicate.get("evaluation")))
            fits = judged is not None and judged.kind == EVALUATION and judged.version == version
            if judged is None or not fits or judged.number >= line.number:
                yield f"{line.name} names no evaluation of version {version} before it"
            elif judged.predicate.get("verdict") != "promote":
                yield f"{line.name} rests on {judged.name}, whose verdict is not to promote"
        elif line.kind == SUMMARY and made:
            named = {part["digest"]["sha256"] for part in line.predicate["inputAttestations"]}
            if named != {made[0].digest}:
                yield f"{line.name} is about another provenance than {made[0].name}"


def _check_policy(
    evaluation: Line, provenance: Line | None, by_digest: Mapping[str, Line]
) -> Iterator[str]:
    """Find where an evaluation does not rest on a policy that was signed before the look."""
    policy = by_digest.get(str(evaluation.policy))
    if policy is None or policy.kind != POLICY:
        yield f"{evaluation.name} names no policy that is in the ledger"
        return
    digest = hash_bytes(write_canonical(policy.predicate.get("policy")))
    if list(policy.subject.values()) != [digest]:
        yield f"{policy.name} holds another policy than its digest says"
    if evaluation.predicate.get("policy_sha256") != digest:
        yield f"{evaluation.name} was made by another policy than {policy.name}"
    if policy.number > evaluation.number:
        yield f"{policy.name} was signed after {evaluation.name}: the look came first"
    elif (
        provenance is not None
        and provenance.predicate[POSITION].get("signed") == WITH_BUILD
        and policy.digest != provenance.policy
    ):
        yield (
            f"{policy.name} was signed after {provenance.name}: version {evaluation.version} had "
            f"been looked at before its policy was fixed"
            if policy.number > provenance.number
            else f"{evaluation.name} rests on {policy.name}, which was not the policy in force "
            f"when version {evaluation.version} was made"
        )
    if provenance is None or provenance.predicate[POSITION].get("signed") == WITH_BUILD:
        yield from _check_date(evaluation, policy, by_digest.values())
    yield from _check_look(evaluation, policy)
    conditions = evaluation.predicate.get("conditions") or []
    passed = all(condition.get("passed") is True for condition in conditions)
    if evaluation.predicate.get("verdict") == "promote" and not passed:
        yield f"{evaluation.name} says to promote, though one of its conditions failed"


def check_looks(ledger: Sequence[Line]) -> Iterator[str]:
    """Find looks that contradict each other, over all versions.

    One model on the same test women is judged by one set of rules; one look is that of one model;
    and the looks at one set of test women spend no more than the plan allows.
    """
    plans = {line.digest: line for line in ledger if line.kind == POLICY}
    by_question: dict[tuple[str, str], Line] = {}
    by_place: dict[tuple[int, int], Line] = {}
    spent: dict[int, dict[int, float]] = {}
    for line in ledger:
        look = line.predicate.get("look")
        if line.kind != EVALUATION or not isinstance(look, dict) or "model" not in look:
            continue
        plan, said = plans.get(str(line.policy)), f"version {line.version}"
        first = by_question.setdefault((str(look["model"]), str(look["test_women"])), line)
        before = plans.get(str(first.policy))
        if (
            plan is not None
            and before is not None
            and digest_of_rules(plan) != (digest_of_rules(before))
        ):
            yield (
                f"{line.name} judges a model by {plan.name} that {first.name} had judged by "
                f"{before.name}, on the same test women: {said} was looked at as version "
                f"{first.version} before its policy was fixed"
            )
        place = int(look["set"]), int(look["number"])
        other = by_place.setdefault(place, line)
        if other.predicate["look"]["model"] != look["model"]:
            yield (
                f"{line.name} and {other.name} are both look {place[1]} at set {place[0]} of test "
                f"women, and of two models: a look was taken out of the registry"
            )
        errors = spent.setdefault(place[0], {})
        errors.setdefault(place[1], float(look["error"]))
        allowed = _allowed_error(plan)
        if allowed is not None and sum(errors.values()) > allowed * (1 + 1e-9):
            yield (
                f"with {line.name} the looks at set {place[0]} of test women have spent an error "
                f"of {sum(errors.values()):.3g}, and {plan.name if plan else ''} allows "
                f"{allowed:.3g}"
            )


def digest_of_rules(plan: Line) -> str:
    """One digest of what a plan judges a model by; not of who approves, and how often one looks."""
    said = plan.predicate.get("policy")
    return hash_rules(said if isinstance(said, dict) else {})


def hash_rules(plan: Mapping[str, Any]) -> str:
    """One digest of the rules in a plan, which is given as JSON."""
    policy: Mapping[str, Any] = plan.get("policy") or plan  # the first ledgers had it alone
    rules: dict[str, Any] = {name: plan.get(name) for name in ("unread", "reference")}
    rules["policy"] = {name: rule for name, rule in policy.items() if name != "approve"}
    return hash_bytes(write_canonical(rules))


def _allowed_error(plan: Line | None) -> float | None:
    """The error that all looks at one set may spend by a plan; None if it does not say."""
    said = plan.predicate.get("policy") if plan is not None else None
    looks = said.get("looks") if isinstance(said, dict) else None
    if not isinstance(looks, dict):
        return None
    return float(looks["error"]) / int(looks.get("sets") or 1)


def _check_date(evaluation: Line, policy: Line, ledger: Iterable[Line]) -> Iterator[str]:
    """Find a policy that was signed after the look that is judged by it."""
    look = evaluation.predicate.get("look")
    if not isinstance(look, dict) or "date" not in look:
        return
    same = [line for line in ledger if line.kind == POLICY and line.subject == policy.subject]
    if min(_read_time(line.date) for line in same) > _read_time(str(look["date"])) + _CLOCKS:
        yield (
            f"{policy.name} of {policy.date} was signed after the look of {look['date']} on which "
            f"{evaluation.name} rests: version {evaluation.version} had been looked at before its "
            f"policy was fixed"
        )


def _check_look(evaluation: Line, plan: Line) -> Iterator[str]:
    """Find where an evaluation is a look that its plan does not allow."""
    look, said = evaluation.predicate.get("look"), plan.predicate.get("policy")
    looks = said.get("looks") if isinstance(said, dict) else None
    if not isinstance(look, dict) or not isinstance(looks, dict):
        return  # from before there was a plan
    if look["number"] > looks["number"]:
        yield (
            f"{evaluation.name} is look {look['number']} at its test women, and {plan.name} allows "
            f"{looks['number']}"
        )
    sets = looks.get("sets")
    if sets is not None and look["set"] > sets:
        yield (
            f"{evaluation.name} is a look at set {look['set']} of test women, and {plan.name} "
            f"allows {sets} sets"
        )
    allowed = looks["error"] / (sets or 1)
    if look.get("error", 0.0) > allowed:
        yield (
            f"{evaluation.name} spends an error of {look['error']}, and {plan.name} allows "
            f"{allowed} for all looks"
        )


def check_kept_files(provenance: Line, folder: Path) -> Iterator[str]:
    """Find files of an export that are not those from which its provenance says it was made."""
    definition = provenance.predicate["buildDefinition"]
    parts = [(part, SNAPSHOT) for part in definition["resolvedDependencies"]]
    parts += [(part, ".") for part in provenance.predicate["runDetails"]["byproducts"]]
    for part, below in parts:
        digest = part["digest"].get("sha256")
        if digest is None:
            continue  # DVC's or git's own hash, of what is not in the export
        file = folder / below / Path(str(part["name"])).name
        if not file.is_file():
            yield f"the export lacks {part['name']}, which {provenance.name} names"
        elif hash_bytes(file.read_bytes()) != digest:
            yield f"{part['name']} is not the file that {provenance.name} names"


def check_snapshot(
    provenance: Line, where: str, commit: str | None, digest: str | None
) -> Iterator[str]:
    """Find where a record of the version's snapshot is not of the one that was signed.

    Args:
        provenance: the line.
        where: the record stands, in words.
        commit: that it names; None if it names none.
        digest: of the snapshot, likewise.
    """
    definition = provenance.predicate["buildDefinition"]
    signed_digest = definition["externalParameters"]["snapshot"]
    signed_commit = next(
        part["digest"]["gitCommit"]
        for part in definition["resolvedDependencies"]
        if "gitCommit" in part["digest"]
    )
    if commit != signed_commit:
        yield f"{where} names the commit {commit}, and {provenance.name} {signed_commit}"
    elif digest != signed_digest:
        yield f"{where} is of the snapshot {digest}, and {provenance.name} names {signed_digest}"


def _check_record(provenance: Line, folder: Path) -> Iterator[str]:
    """The same of the snapshot in an export."""
    file = folder / RECORD
    if not file.is_file():
        yield f"the export lacks {RECORD}, whose digest {provenance.name} names"
        return
    try:
        said = json.loads(file.read_bytes())
        commit = str(said["commit"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        yield f"{RECORD} of the export is no snapshot ({error!r})"
        return
    yield from check_snapshot(provenance, RECORD, commit, hash_bytes(file.read_bytes()))


def note_old_documents(ledger: Iterable[Line], version: int) -> Iterator[str]:
    """Find documents of a version that were signed before other lines about it."""
    written: Line | None = None
    later: Line | None = None
    for line in ledger:
        if line.kind == DOCUMENTS and line.version == version:
            written, later = line, None
        elif line.kind not in (POLICY, DOCUMENTS):
            moved = (line.predicate.get("from"), line.predicate.get("to"))
            if line.version == version or (line.kind in DECISIONS and version in moved):
                later = line
    if written is not None and later is not None:
        yield (
            f"the documents of version {version} are as of {written.name}, and know nothing of "
            f"{later.name}: `mammoflow documents {version}` renews them"
        )


def note_unsigned_moves(ledger: Iterable[Line]) -> Iterator[str]:
    """Find where the champion changed without a line in the ledger."""
    before: Line | None = None
    for line in ledger:
        if line.kind not in ("promotion", "approval", "rollback"):
            continue
        if before is not None and line.predicate.get("from") != before.predicate.get("to"):
            yield (
                f"between {before.name} and {line.name} the champion changed, and nobody signed it"
            )
        before = line


def write_manifest(content: Mapping[str, Any]) -> str:
    """The text of an export's manifest: there is one only."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def verify(
    folder: Path,
    keys_folder: Path | None = None,
    trusted: Collection[str] = (),
    known: tuple[int, str] | None = None,
) -> VerificationReport:
    """Verify an export.

    Args:
        folder: of the export.
        keys_folder: the public keys; those of the export if there is none.
        trusted: the ids of the keys that the reader trusts; all if there are none.
        known: number and digest of a line that the reader wrote down as the last, earlier.
    """
    try:
        written = (folder / MANIFEST).read_bytes()
        manifest = json.loads(written)
        report = VerificationReport(int(manifest["version"]))
        files, model = dict(manifest["files"]), str(manifest["model"])
        head = manifest["head"]
        last = (int(head["line"]), str(head["digest"])) if head is not None else None
        canonical = write_manifest(manifest).encode() == written and set(manifest) == {
            "files",
            "head",
            "model",
            "version",
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return VerificationReport(
            0, [f"{MANIFEST} of the export cannot be read ({type(error).__name__})"]
        )
    if not canonical:
        report.wrong.append(f"{MANIFEST} of the export was changed: it is not as it is written")
    try:
        report.wrong += _compare_files(folder, files)
    except ValueError as error:
        report.wrong.append(str(error))
    keys, faults = read_keys(folder / "keys" if keys_folder is None else keys_folder)
    report.wrong += faults
    ledger, faults = _read_ledger(folder)
    report.wrong += faults
    verify_ledger(report, ledger, keys, trusted, last)
    if ledger and last is None:
        report.notes.append("the registry names no last line, so the last ones may be missing")
    report.wrong += [*_check_known(ledger, known), *_check_names(ledger, model, last)]
    report.notes += note_old_documents(ledger, report.version)
    own = [line for line in ledger if line.version == report.version]
    file = folder / "attestations" / f"v{report.version}.intoto.jsonl"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    report.wrong += check_version_file(ledger, report.version, text)
    for other in sorted(file.parent.glob("*")):
        if other.name != file.name:
            report.wrong.append(
                f"the export holds attestations/{other.name}, and its {MANIFEST} is of version "
                f"{report.version}"
            )
    _verify_documents(report, own, folder / PAPERS)
    made = [line for line in own if line.kind == PROVENANCE]
    if not made:
        report.notes.append(
            f"version {report.version} has no signed provenance: `mammoflow evidence sign "
            f"{report.version}` signs it, and says that it was later"
        )
        return report
    report.signed = True
    try:
        report.wrong += describe_compiled(find_compiled(folder), "the export")
        found = hash_folder(folder / MODEL)
        report.wrong += [*check_model(made[0], found), *check_kept_files(made[0], folder)]
        report.wrong += _check_record(made[0], folder)
        report.wrong += [*check_statements(ledger, report.version), *check_looks(ledger)]
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        report.wrong.append(f"a statement of version {report.version} lacks a part ({error!r})")
    if made[0].predicate[POSITION].get("signed") == LATER:
        report.notes.append(
            f"{made[0].name} was signed later, on {made[0].date}: it says what was registered "
            f"then, and not that it was so before"
        )
    return report


def _check_known(ledger: Iterable[Line], known: tuple[int, str] | None) -> Iterator[str]:
    """Find where the line is gone that a reader wrote down."""
    if known is not None and known not in {(line.number, line.digest) for line in ledger}:
        yield f"line {known[0]}, which you wrote down as {known[1][:16]}, is not in the ledger"


def _check_names(ledger: Iterable[Line], model: str, last: tuple[int, str] | None) -> Iterator[str]:
    """Find where a manifest names another model, or another number of the last line."""
    for line in ledger:
        if (said := line.predicate[POSITION].get("model")) != model:
            yield f"{MANIFEST} of the export is of the model {model}, and {line.name} of {said}"
            break
    for line in ledger:
        if last is not None and line.digest == last[1] and line.number != last[0]:
            yield f"{MANIFEST} of the export calls {line.name} line {last[0]}"


def _verify_documents(report: VerificationReport, own: Sequence[Line], folder: Path) -> None:
    """Add to a report what is wrong with the documents of the version."""
    written = [line for line in own if line.kind == DOCUMENTS]
    try:
        files = hash_folder(folder)
    except ValueError as error:
        report.wrong.append(f"{PAPERS}/ of the export cannot be read: {error}")
        return
    if written:
        report.wrong += check_documents(written[-1], files)
    elif files:
        report.notes.append(f"nobody signed the documents of version {report.version}")


def verify_ledger(
    report: VerificationReport,
    ledger: Sequence[Line],
    keys: Mapping[str, PublicKey],
    trusted: Collection[str],
    head: tuple[int, str] | None,
) -> None:
    """Add to a report what is wrong with a ledger, and a row for each of its lines."""
    report.wrong += [*check_signatures(ledger, keys, trusted), *check_chain(ledger, head)]
    report.notes += note_unsigned_moves(ledger)
    if ledger:
        end = max(ledger, key=lambda line: line.number)
        report.head = f"{end.number}:{end.digest}"
    for line in ledger:
        key = keys.get(line.keyid)
        who = f"{key.name} ({key.role}), key {key.keyid[:16]}" if key else "a key not in keys/"
        report.lines.append(f"{line.number:4}  {line.date}  {describe(line)}, by {who}")


def _read_ledger(folder: Path) -> tuple[list[Line], list[str]]:
    try:
        text = (folder / LEDGER).read_text(encoding="utf-8")
    except FileNotFoundError:
        return [], []
    except UnicodeDecodeError:
        return [], [f"{LEDGER} is no text"]
    return read_lines(split_lines(text))


def read_lines(raws: Iterable[str]) -> tuple[list[Line], list[str]]:
    """The lines of a ledger, and a sentence for each that cannot be read."""
    lines, faults = [], []
    for at, raw in enumerate(raws, start=1):
        try:
            lines.append(read_line(raw))
        except ValueError as error:
            faults.append(f"row {at} of the ledger {error}")
    return lines, faults


def _compare_files(folder: Path, wanted: Mapping[str, str]) -> Iterator[str]:
    found = hash_folder(folder)
    found.pop(MANIFEST, None)
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"the export lacks {name}"
        elif name not in wanted:
            yield f"the export holds {name}, which its {MANIFEST} does not name"
        elif found[name] != wanted[name]:
            yield f"{name} of the export was changed: it is not the file of its {MANIFEST}"


def _read_time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def parse_head(text: str | None) -> tuple[int, str] | None:
    """Number and digest of a line, as a report names the last one.

    Raises:
        ValueError: if the text is not such a pair.
    """
    if text is None:
        return None
    number, _, digest = text.partition(":")
    if not (number.isascii() and number.isdecimal() and len(number) < 9 and _HEX.fullmatch(digest)):
        raise ValueError("give the number and the digest of a line, such as 9:3f0c... (64 signs)")
    return int(number), digest


def main() -> int:
    """Verify the export that the command line names."""
    parser = argparse.ArgumentParser(description="Verify the signed evidence of a model version.")
    own_folder = Path(__file__).resolve().parent
    parser.add_argument("folder", nargs="?", type=Path, default=own_folder, help="of the export")
    parser.add_argument("--keys", type=Path, help="a folder of public keys that you trust")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="KEYID", help="a key that you trust"
    )
    parser.add_argument(
        "--head", metavar="NUMBER:DIGEST", help="the last line, as you wrote it down earlier"
    )
    given = parser.parse_args()
    try:
        known = parse_head(given.head)
    except ValueError as error:
        parser.error(f"--head: {error}")
    if any(not _HEX.fullmatch(keyid) for keyid in given.trust):
        parser.error("--trust: the id of a key has 64 characters of 0 to 9 and a to f")
    report = verify(given.folder, given.keys, given.trust, known)
    last = [f"last line {report.head}: write it down, for --head"] if report.head else []
    if report.signed and not given.keys and not given.trust:
        last.append("by the keys in the export, which may be changed, too: --trust names yours")
    for line in (*report.lines, *last, *(f"note: {x}" for x in report.notes), *report.wrong):
        print(ascii(line)[1:-1] if not line.isprintable() else line)
    print(report.sentence)
    return report.status


if __name__ == "__main__":
    sys.exit(main())
