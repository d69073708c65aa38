"""Whatever is changed in an export, the verifier says so, in a true sentence.

It runs in a bare environment, too: Python and `cryptography`, without the project.
"""

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode
from py_compile import compile as compile_file
from random import Random
from typing import Any

import cryptography
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from flows.evidence.keys import Owner
from flows.evidence.ledger import seal
from flows.evidence.statements import describe_plan, hash_plan
from flows.evidence.verify import (
    EVALUATION,
    POLICY,
    POSITION,
    Line,
    PublicKey,
    VerificationReport,
    check_looks,
    note_old_documents,
    parse_head,
    read_key,
    read_line,
    verify,
    write_manifest,
)
from tests.support.judged import plan
from tests.support.signed_project import read_payload, renew_manifest, rewrite, with_payload
from tests.support.tampering import flip_a_byte

UNCHECKED = PycInvalidationMode.UNCHECKED_HASH
LEDGER, OWN = "ledger.intoto.jsonl", "attestations/v2.intoto.jsonl"
WEIGHTS = "model/artifacts/predictor/weights.safetensors"


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has `cryptography`, and what that needs, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    (target,) = folder.glob("lib/python*/site-packages")
    there = Path(cryptography.__file__).parents[1]
    for name in ("cryptography*", "cffi*", "_cffi_backend*", "pycparser*"):
        for path in there.glob(name):
            (target / path.name).symlink_to(path)
    return folder / "bin" / "python"


def run(bare_python: Path, export: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [str(bare_python), "-I", str(export / "verify.py"), *more]
    return subprocess.run(command, cwd="/", env={}, capture_output=True, text=True)


def owner(signed: Path, name: str) -> Owner:
    pem = (signed / "private" / f"{name}.pem").read_bytes()
    key = load_pem_private_key(pem, None)
    assert isinstance(key, Ed25519PrivateKey)
    return Owner(read_key(signed / "project" / "keys" / f"{name}.json"), CryptoSigner(key))


def in_both(export: Path, change: Callable[[list[str]], list[str]]) -> VerificationReport:
    """Change the ledger and the version's own file alike, and verify with a manifest that fits."""
    for name in (LEDGER, OWN):
        rewrite(export / name, change)
    renew_manifest(export)
    return verify(export)


def assert_says(report: VerificationReport, *sentences: str) -> None:
    assert report.status == 1
    for sentence in sentences:
        assert any(sentence in said for said in report.wrong), report.wrong


def test_an_untouched_export_holds_where_the_project_is_not(
    bare_python: Path, signed: Path
) -> None:
    assert (
        subprocess.run([bare_python, "-Ic", "import mlflow"], capture_output=True).returncode == 1
    )
    result = run(bare_python, signed / "export")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[-1] == "The signed evidence of version 2 holds."
    assert lines[-2].startswith("by the keys in the export, which may be changed")
    assert lines[-3].startswith("last line 11:")
    assert [line.split("  ")[2].split(", by ")[0] for line in (x.strip() for x in lines[:-3])] == [
        "policy",
        "provenance of version 1",
        "evaluation of version 1",
        "promotion of version 1",
        "policy",
        "provenance of version 2",
        "evaluation of version 2",
        "refusal of version 2",
        "approval of version 2",
        "audit verdict of version 2",
        "rollback of version 1",
    ]
    assert ", by lab (auditor), key " in lines[9]
    result = run(bare_python, signed / "export", "--keys", str(signed / "export" / "keys"))
    assert result.returncode == 0
    assert "may be changed" not in result.stdout


def test_a_changed_model_is_found_where_the_project_is_not(bare_python: Path, copy: Path) -> None:
    flip_a_byte(copy / WEIGHTS, -1)
    result = run(bare_python, copy)
    assert result.returncode == 1
    assert f"{WEIGHTS} of the export was changed" in result.stdout
    assert "does not hold" in result.stdout.splitlines()[-1]


def test_a_changed_bit_anywhere_in_any_file_is_found(signed: Path, copy: Path) -> None:
    names = [x.relative_to(copy).as_posix() for x in sorted(copy.rglob("*")) if x.is_file()]
    assert {"verify.py", "manifest.json", LEDGER, OWN, WEIGHTS, "keys/lab.json"} <= set(names)
    random = Random(16)
    for name in names:
        content = (copy / name).read_bytes()
        places = {0, len(content) - 1, *(random.randrange(len(content)) for _ in range(4))}
        for place in sorted(places):
            bit = 1 << random.randrange(8)
            changed = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
            (copy / name).write_bytes(changed)
            report = verify(copy)
            assert report.status == 1, (name, place, bit)
            assert any(name in said or "manifest.json" in said for said in report.wrong)
        (copy / name).write_bytes(content)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "another"}, "is of the model another, and line 1 (policy) of mammogram-"),
        ({"more": 1}, "manifest.json of the export was changed: it is not as it is written"),
        ({"head": {"line": 10}}, "manifest.json of the export calls line 11"),
        ({"version": 3}, "the export holds attestations/v2.intoto.jsonl, and its manifest.json is"),
    ],
)
def test_what_a_manifest_says_beside_its_files_is_compared_with_the_ledger(
    copy: Path, change: dict[str, Any], sentence: str
) -> None:
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    if "head" in change:
        change = {"head": {**manifest["head"], **change["head"]}}
    path.write_text(write_manifest({**manifest, **change}))
    assert_says(verify(copy), sentence)


def test_a_manifest_that_is_written_otherwise_or_is_no_manifest_is_said(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert_says(verify(copy), "it is not as it is written")
    path.write_text("[" * 100_000)
    assert_says(verify(copy), "manifest.json of the export cannot be read (RecursionError)")


def test_compiled_code_beside_the_model_is_found_for_python_runs_it_unsigned(
    copy: Path, bare_python: Path
) -> None:
    """It would be run instead of the source: its header tells Python not to compare the two."""
    source = copy / "model/code/mammo/science.py"
    evil = copy.parent / "science.py"
    evil.write_text("ANSWER = 666\n")
    compiled = Path(cache_from_source(str(source)))
    compile_file(str(evil), cfile=str(compiled), invalidation_mode=UNCHECKED)
    asked = "from mammo import science; print(science.ANSWER)"
    ran = subprocess.run(
        [sys.executable, "-c", asked], cwd=source.parents[1], env={}, capture_output=True, text=True
    )
    assert ran.stdout == "666\n"
    name = compiled.relative_to(copy).as_posix()
    said = f"the export holds compiled code that nobody signed: {name}"
    assert_says(verify(copy), said)
    assert said in run(bare_python, copy).stdout
    shutil.rmtree(compiled.parent)
    assert verify(copy).status == 0
    (source.parent / "more.pyc").write_bytes(b"")
    assert_says(verify(copy), "the export holds compiled code that nobody signed: model/code/mammo")


def test_who_wrote_down_an_earlier_last_line_finds_that_it_is_gone(
    copy: Path, bare_python: Path
) -> None:
    before = verify(copy).head
    assert before is not None
    assert run(bare_python, copy, "--head", before).returncode == 0
    lines = (copy / LEDGER).read_text().splitlines()[:-1]  # the rollback, of version 1
    (copy / LEDGER).write_text("".join(f"{line}\n" for line in lines))
    last, path = read_line(lines[-1]), copy / "manifest.json"
    renew_manifest(copy)
    manifest = {**json.loads(path.read_text()), "head": {"line": 10, "digest": last.digest}}
    path.write_text(write_manifest(manifest))
    assert verify(copy).status == 0  # nothing in the export tells it
    assert_says(verify(copy, known=parse_head(before)), "line 11, which you wrote down as ")
    result = run(bare_python, copy, "--head", before)
    assert (result.returncode, "which you wrote down" in result.stdout) == (1, True)
    assert run(bare_python, copy, "--head", "11").returncode == 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (WEIGHTS, "the model has other bytes than line 6 (provenance of version 2) names"),
        ("snapshot/params.yaml", "params.yaml is not the file that line 6"),
        ("snapshot/dvc.lock", "dvc.lock is not the file that line 6"),
        ("snapshot/requirements.lock", "requirements.lock is not the file that line 6"),
        ("environment.json", "environment.json is not the file that line 6"),
        ("bom.cdx.json", "bom.cdx.json is not the file that line 6"),
        ("keys/lab.json", "lab.json in keys/"),
        (OWN, "attestations/v2.intoto.jsonl has 1 lines that the ledger has not"),
    ],
)
def test_a_changed_file_is_found_though_the_manifest_was_made_to_fit(
    copy: Path, name: str, sentence: str
) -> None:
    flip_a_byte(copy / name, len((copy / name).read_bytes()) // 2)
    renew_manifest(copy)
    assert_says(verify(copy), sentence)


def test_a_file_that_was_added_or_taken_away_is_found(copy: Path) -> None:
    (copy / "model" / "code" / "more.py").write_text("")
    (copy / WEIGHTS).unlink()
    assert_says(verify(copy), f"the export lacks {WEIGHTS}", "the export holds model/code/more.py")
    renew_manifest(copy)
    assert_says(
        verify(copy),
        "the model lacks what line 6 (provenance of version 2) names: artifacts/predictor/weights",
        "the model holds what line 6 (provenance of version 2) does not name: code/more.py",
    )


def test_a_line_that_was_taken_out_is_found(copy: Path) -> None:
    gone = (copy / LEDGER).read_text().splitlines()[8]  # the approval
    report = in_both(copy, lambda lines: [line for line in lines if line != gone])
    assert_says(report, "line 9 was taken out of the ledger")


def test_the_last_lines_cannot_be_taken_out_while_somebody_knows_the_last(copy: Path) -> None:
    report = in_both(copy, lambda lines: lines[:-1] if len(lines) > 6 else lines)
    assert_says(report, "line 11, the last that the registry names, was taken out of the ledger")


def test_a_line_that_is_there_twice_is_found(copy: Path) -> None:
    report = in_both(copy, lambda lines: [*lines[:2], lines[1], *lines[2:]])
    assert_says(
        report, "is there twice", "v2.intoto.jsonl has line 6 (provenance of version 2) twice"
    )


def test_lines_in_another_order_are_found(copy: Path) -> None:
    report = in_both(copy, lambda lines: [lines[1], lines[0], *lines[2:]])
    assert_says(
        report, "stands after", "the lines of attestations/v2.intoto.jsonl were put in another"
    )
    assert not [sentence for sentence in report.wrong if "taken out" in sentence]


def test_a_line_of_the_version_that_its_own_file_lacks_is_found(copy: Path) -> None:
    rewrite(copy / OWN, lambda lines: lines[:-1])
    renew_manifest(copy)
    assert_says(verify(copy), "attestations/v2.intoto.jsonl lacks line 10 (audit verdict")


def test_what_a_line_says_cannot_be_changed(copy: Path) -> None:
    def change(statement: dict[str, Any]) -> None:
        statement["predicate"]["why"] = "another reason"

    old = (copy / LEDGER).read_text().splitlines()[8]
    new = with_payload(old, change)
    report = in_both(copy, lambda lines: [new if line == old else line for line in lines])
    assert_says(
        report,
        "line 9 (approval of version 2) was changed: the signature of the key anna",
        "line 10 (audit verdict of version 2) follows another line than the 9 that is there",
    )


def test_a_line_of_a_key_that_is_not_in_keys_is_found(copy: Path) -> None:
    stranger = CryptoSigner.generate_ed25519()
    fake = Owner(PublicKey("x", "approver", stranger.public_key.keyid, ""), stranger)
    old = (copy / LEDGER).read_text().splitlines()[8]
    said = read_payload(old)
    subject = {part["name"]: part["digest"]["sha256"] for part in said["subject"]}
    new = seal(fake, "approval", subject, {**said["predicate"], "why": "forged"})
    report = in_both(copy, lambda lines: [new if line == old else line for line in lines])
    keyid = stranger.public_key.keyid[:16]
    assert_says(
        report, f"line 9 (approval of version 2) is signed by the key {keyid}, which is not"
    )


def test_a_key_that_the_reader_does_not_trust_is_found_though_it_is_in_keys(
    copy: Path, signed: Path, bare_python: Path
) -> None:
    ids = [read_key(path).keyid for path in sorted((copy / "keys").glob("*.json"))]
    assert verify(copy, trusted=ids).status == 0
    report = verify(copy, trusted=ids[1:])  # anna's is left out
    assert_says(report, "is signed by the key anna", "which you did not name as trusted")
    given = [word for keyid in ids[1:] for word in ("--trust", keyid)]
    assert run(bare_python, copy, *given).returncode == 1
    assert run(bare_python, copy, "--keys", str(signed / "project" / "keys")).returncode == 0
    assert run(bare_python, copy, "--trust", "abc").returncode == 2


def withdraw(export: Path, name: str, when: str) -> None:
    path = export / "keys" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "withdrawn": when}))
    renew_manifest(export)


def test_what_a_key_signed_after_it_was_withdrawn_does_not_count(copy: Path) -> None:
    withdraw(copy, "lab", "2020-01-01T00:00:00+00:00")
    assert_says(verify(copy), "(auditor, ", "which was withdrawn from 2020-01-01T00:00:00+00:00 on")


def test_what_a_key_signed_before_it_was_withdrawn_counts(copy: Path) -> None:
    withdraw(copy, "lab", "2999-01-01T00:00:00+00:00")
    assert verify(copy).status == 0


def append(export: Path, signed: Path, who: str, kind: str, **changes: Any) -> VerificationReport:
    """Add a line that a holder of a key made, with a position of their own."""
    last = read_line((export / LEDGER).read_text().splitlines()[-1])
    position = {**last.predicate[POSITION], "line": last.number + 1, "previous": last.digest}
    position |= {"version": None, "policy": None, **changes.pop("position", {})}
    said = {**changes.pop("predicate", {}), POSITION: position}
    new = seal(owner(signed, who), kind, changes.pop("subject", {"policy": "0" * 64}), said)
    rewrite(export / LEDGER, lambda lines: [*lines, new])
    if position["version"] == 2:
        rewrite(export / OWN, lambda lines: [*lines, new])
    renew_manifest(export)
    return verify(export)


def test_a_policy_that_is_dated_back_is_found(copy: Path, signed: Path) -> None:
    easy = plan(sensitivity_floor=0.1)
    report = append(
        copy,
        signed,
        "server",
        "urn:mammoflow:policy:v1",
        subject={"policy": hash_plan(easy)},
        predicate=describe_plan(easy),
        position={"date": "2020-01-01T00:00:00+00:00"},
    )
    assert_says(report, "line 12 (policy) is dated 2020-01-01T00:00:00+00:00, earlier than line 11")


def test_a_policy_that_was_put_in_before_the_look_is_found(copy: Path, signed: Path) -> None:
    """By the builder's own key, instead of the one that was there."""
    easy = plan(sensitivity_floor=0.5)
    old = (copy / LEDGER).read_text().splitlines()[4]
    position = read_line(old).predicate[POSITION]
    said = {**describe_plan(easy), POSITION: position}
    kind = "urn:mammoflow:policy:v1"
    new = seal(owner(signed, "server"), kind, {"policy": hash_plan(easy)}, said)
    report = in_both(copy, lambda lines: [new if line == old else line for line in lines])
    assert_says(
        report,
        "line 6 (provenance of version 2) follows another line than the 5 that is there",
        "line 7 (evaluation of version 2) names no policy that is in the ledger",
    )


def test_an_evaluation_by_a_policy_that_was_signed_after_the_model_was_made_is_found(
    copy: Path, signed: Path
) -> None:
    easy = plan(sensitivity_floor=0.5)
    append(
        copy,
        signed,
        "server",
        "urn:mammoflow:policy:v1",
        subject={"policy": hash_plan(easy)},
        predicate=describe_plan(easy),
    )
    lines = [read_line(raw) for raw in (copy / LEDGER).read_text().splitlines()]
    judged = lines[6]
    rewrite(copy / OWN, lambda own: [*own, lines[-1].raw])
    report = append(
        copy,
        signed,
        "server",
        "urn:mammoflow:evaluation:v1",
        subject=judged.subject,
        predicate={**judged.predicate, "policy_sha256": hash_plan(easy), "verdict": "promote"},
        position={"version": 2, "policy": lines[-1].digest},
    )
    assert_says(
        report,
        "line 12 (policy) was signed after line 6 (provenance of version 2): version 2 had been "
        "looked at before its policy was fixed",
        "line 13 (evaluation of version 2) says to promote, though one of its conditions failed",
    )


def test_an_evaluation_by_an_older_policy_than_the_one_in_force_is_found(
    copy: Path, signed: Path
) -> None:
    """Else one could sign many policies, and take whichever suits."""
    lines = [read_line(raw) for raw in (copy / LEDGER).read_text().splitlines()]
    judged, older = lines[6], lines[0]
    rewrite(copy / OWN, lambda own: [older.raw, *own])
    report = append(
        copy,
        signed,
        "server",
        "urn:mammoflow:evaluation:v1",
        subject=judged.subject,
        predicate={**judged.predicate, "policy_sha256": older.subject["policy"]},
        position={"version": 2, "policy": older.digest},
    )
    assert report.wrong == [
        "line 12 (evaluation of version 2) rests on line 1 (policy), which was not the policy in "
        "force when version 2 was made"
    ]


def test_a_look_that_the_plan_does_not_allow_is_found(copy: Path, signed: Path) -> None:
    lines = [read_line(raw) for raw in (copy / LEDGER).read_text().splitlines()]
    judged = lines[6]
    look = {**judged.predicate["look"], "number": 6, "error": 0.5}
    report = append(
        copy,
        signed,
        "server",
        "urn:mammoflow:evaluation:v1",
        subject=judged.subject,
        predicate={**judged.predicate, "look": look},
        position={"version": 2, "policy": judged.policy},
    )
    assert report.wrong == [
        "line 12 (evaluation of version 2) is look 6 at its test women, and line 5 (policy) allows "
        "5",
        "line 12 (evaluation of version 2) spends an error of 0.5, and line 5 (policy) allows 0.25 "
        "for all looks",
    ]


def test_a_promotion_that_the_gate_did_not_decide_is_found(copy: Path, signed: Path) -> None:
    lines = [read_line(raw) for raw in (copy / LEDGER).read_text().splitlines()]
    refused = {"evaluation": lines[6].digest, "from": 1, "to": 2, "who": "x", "why": "y"}
    more: dict[str, Any] = {"subject": lines[6].subject, "position": {"version": 2}}
    report = append(copy, signed, "server", "promotion", predicate=refused, **more)
    assert_says(
        report, "rests on line 7 (evaluation of version 2), whose verdict is not to promote"
    )


def test_a_key_signs_only_what_its_role_may_sign(copy: Path, signed: Path) -> None:
    fake = owner(signed, "server")
    fake = Owner(PublicKey(fake.key.name, "approver", fake.key.keyid, ""), fake.signer)
    last = read_line((copy / LEDGER).read_text().splitlines()[-1])
    position = {**last.predicate[POSITION], "line": 12, "previous": last.digest}
    said = {**last.predicate, "why": "by the builder", POSITION: position}
    new = seal(fake, "rollback", last.subject, said)
    rewrite(copy / LEDGER, lambda lines: [*lines, new])
    renew_manifest(copy)
    assert_says(
        verify(copy), "is signed by the key server (builder, ", "but needs a key of approver"
    )


def test_text_that_is_no_line_is_found(copy: Path) -> None:
    rewrite(copy / LEDGER, lambda lines: [*lines, "[1, 2]", lines[0].replace(",", ", ", 1)])
    renew_manifest(copy)
    assert_says(
        verify(copy),
        "row 12 of the ledger is no attestation (",
        "row 13 of the ledger is not written as it was signed",
    )


def test_a_folder_that_is_no_export_is_said(
    tmp_path: Path, bare_python: Path, signed: Path
) -> None:
    assert_says(verify(tmp_path), "manifest.json of the export cannot be read")
    result = run(bare_python, signed / "export", str(tmp_path))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def line_of(number: int, kind: str, version: int | None, **said: Any) -> Line:
    """A line as it stands in a ledger; nothing here asks for its signature."""
    policy, subject = said.pop("policy_line", None), said.pop("subject", {})
    date = "2026-11-27T10:00:00+00:00"
    return Line(f"{number}", b"", "", b"", kind, subject, said, number, None, date, version, policy)


def judged(at: int, version: int, policy: Line, model: str, **changes: Any) -> Line:
    look = {"model": model, "test_women": "w", "set": 1, "number": 1, "error": 0.05, **changes}
    return line_of(at, EVALUATION, version, look=look, policy_line=policy.digest)


def policy_line(number: int, **of_policy: Any) -> Line:
    return line_of(number, POLICY, None, **describe_plan(plan(**of_policy)))


def test_one_model_that_was_judged_by_two_policies_on_the_same_women_is_found() -> None:
    strict, mild = policy_line(1, sensitivity_floor=0.99), policy_line(3)
    manual = policy_line(5, approve="manual")
    ledger = [strict, judged(2, 3, strict, "m"), mild, judged(4, 4, mild, "m")]
    [said] = check_looks(ledger)
    assert said.startswith(
        "line 4 (evaluation of version 4) judges a model by line 3 (policy) that line 2 "
        "(evaluation of version 3) had judged by line 1 (policy), on the same test women"
    )
    # Who approves is none of the rules by which a model is judged.
    assert not list(check_looks([mild, judged(4, 3, mild, "m"), manual, judged(6, 4, manual, "m")]))


def test_one_look_of_two_models_and_more_error_than_the_plan_has_are_found() -> None:
    rules = policy_line(1)  # five looks, an error of 0.25
    [said] = check_looks([rules, judged(2, 3, rules, "m"), judged(3, 4, rules, "n")])
    assert "line 3 (evaluation of version 4) and line 2 (evaluation of version 3) are both" in said
    looks = [judged(x + 1, x, rules, f"m{x}", number=x, error=0.1) for x in (1, 2, 3)]
    [said] = check_looks([rules, *looks])
    assert "the looks at set 1 of test women have spent an error of 0.3, and line 1" in said


def test_documents_that_know_nothing_of_a_later_line_are_noted() -> None:
    papers = line_of(1, "urn:mammoflow:documents:v1", 2)
    moved = line_of(2, "rollback", 1, **{"from": 2, "to": 1})
    assert list(note_old_documents([papers, line_of(2, "approval", 5)], 2)) == []
    [said] = note_old_documents([papers, moved], 2)
    assert "`mammoflow documents 2` renews them" in said
