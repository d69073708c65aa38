"""The commands of evidence: verify, documents, keys new, keys withdraw, evidence sign and export.

mammoflow verify --help
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_empty, check_keys, one_sentence, say
from flows.tracking import preflight
from mammo.base.errors import UserError

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="Make keys, list them, or withdraw one.")
evidence = typer.Typer(no_args_is_help=True, help="Sign a version, or export its evidence.")


@app.command()
def verify(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
    trust: Annotated[
        list[str] | None, typer.Option(help="Id of a key that you trust; all of keys/ without it.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="NUMBER:DIGEST", help="The last line, as you wrote it down earlier."),
    ] = None,
) -> None:
    """Verify the signed evidence of a model version: signatures, chain, model, policy before look.

    Exits with 0 if it holds, 1 if something is wrong, 2 if the version is unsigned.
    """
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        preflight.check_registry()
        preflight.check_version(version)
    from flows.evidence.export import verify_version
    from flows.evidence.verify import parse_head
    from flows.tracking.find_version import find_version

    with one_sentence(status=2):
        try:
            known = parse_head(head)
        except ValueError as error:
            raise UserError(f"--head: {error}") from None
        report = verify_version(Path.cwd(), find_version(version), trust or (), known)
    last = [f"last line {report.head}: write it down, for --head"] if report.head else []
    if report.signed and not trust:
        last.append(
            "by the keys in keys/, which whoever writes to git may change: name yours with --trust"
        )
    for line in (*report.lines, *last, *(f"note: {note}" for note in report.notes)):
        say(line)
    for sentence in report.wrong:
        say(f"wrong: {sentence}")
    say(report.sentence)
    raise typer.Exit(report.status)


@app.command()
def documents(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
    out: Annotated[
        Path | None, typer.Option(help="A new folder; without it they are kept in MLflow.")
    ] = None,
) -> None:
    """Write the documents of a model version: model card, technical documentation, change plan."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        if out is not None:
            check_empty(out)
            preflight.check_disk(out, 0)
        preflight.check_registry()
        preflight.check_version(version)
        if out is None:
            check_keys(Path.cwd(), "builder", "approver")
    from flows.documents.keep import keep_documents, make_documents, write_documents
    from flows.evidence.ledger import publish_ledger
    from flows.tracking.find_version import find_version

    with one_sentence(status=2):
        found = find_version(version)
    with one_sentence():
        if out is not None:
            papers = make_documents(Path.cwd(), found)
            write_documents(papers, out)
        else:
            papers = keep_documents(Path.cwd(), found)
            if fault := publish_ledger(Path.cwd()):
                say(fault, err=True)
    where = str(out) if out is not None else f"documents/ of the run {found.run_id} in MLflow"
    for name, number in papers.to_be_written.items():
        say(f"{name}  to be written by the provider: {number} passages")
    say(f"they lie in {where}; a provider's own passages belong into documents/provider.yaml")


@keys.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Of the key: build-server, or whose it is.")],
    role: Annotated[str, typer.Option(help="What it may sign: builder, approver or auditor.")],
) -> None:
    """Make an Ed25519 key: the private half outside the clone, the public half in keys/."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        from flows.evidence.keys import ask_passphrase, make_key

        passphrase = ask_passphrase(confirm=True, what=f"the new key {name}, or nothing")
        made, private = make_key(Path.cwd(), name, role, passphrase)
    kept = "encrypted" if passphrase else "not encrypted"
    say(f"private  {private} ({kept}): never commit it, never send it")
    say(f'public   keys/{name}.json: `git add keys && git commit -m "keys: {name}"`')
    say(f"id       {made.keyid}: tell it those who will verify, by another way than git")


@keys.command("list")
def list_all() -> None:
    """List the public keys of keys/."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        from flows.evidence.keys import describe_key, list_keys

        found = list_keys(Path.cwd())
    for key in found:
        say(describe_key(key))
    if not found:
        typer.echo("keys/ has no key: nothing is signed")


@keys.command("withdraw")
def withdraw(
    name: Annotated[str, typer.Argument(help="Of the key.")],
    since: Annotated[
        datetime | None, typer.Option(help="From when on, in UTC; from now on without it.")
    ] = None,
) -> None:
    """Withdraw a public key: what it signs from that time on does not count."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        from flows.evidence.keys import describe_key, withdraw_key

        when = since.replace(tzinfo=UTC) if since is not None else datetime.now(UTC)
        found = withdraw_key(Path.cwd(), name, when)
    say(f'{describe_key(found)}: `git commit -m "keys: {name} withdrawn" keys`')


@evidence.command("sign")
def sign(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
) -> None:
    """Sign a version that was registered unsigned; the signature says that it was later."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        preflight.check_registry()
        preflight.check_version(version)
        check_keys(Path.cwd(), "builder")
    from flows.evidence.ledger import publish_ledger
    from flows.evidence.signing import sign_version
    from flows.tracking.find_version import find_version

    with one_sentence(status=2):
        found = find_version(version)
    with one_sentence():
        line = sign_version(Path.cwd(), found, later=True)
        if line is None:
            raise UserError(
                "there is no key of the role builder: `mammoflow keys new NAME --role builder`, or "
                "name its file by MAMMOFLOW_KEY"
            )
        say(f"version {found.version} is signed: {line.name}, later than it was registered")
        if fault := publish_ledger(Path.cwd()):
            say(fault, err=True)


@evidence.command("export")
def export(
    version: Annotated[str, typer.Argument(help="3, or mammogram-classifier@champion.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Write the evidence of a version into a folder, with a verifier that needs nothing else."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        check_empty(folder)
        preflight.check_registry()
        preflight.check_version(version)
    from flows.documents.keep import has_documents, make_documents
    from flows.evidence.export import export as export_version
    from flows.tracking.find_version import find_version

    with one_sentence(status=2):
        found = find_version(version)
    with one_sentence():
        made = {} if has_documents(found) else make_documents(Path.cwd(), found).files
        export_version(Path.cwd(), found, folder, made)
    say(f"verify it by `python {folder}/verify.py`, anywhere: it needs `cryptography` and no more")


app.add_typer(keys, name="keys")
app.add_typer(evidence, name="evidence")
