"""The command that makes a model a DICOM node: listen.

mammoflow listen --help
"""

import re
from pathlib import Path
from typing import Annotated

import typer

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_writable, one_sentence, say
from flows.cli.predicting import ReportKind
from flows.tracking import preflight
from mammo.base.errors import UserError

app = typer.Typer()

_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}


@app.command()
def listen(
    spool: Annotated[Path, typer.Argument(help="A folder for what is on its way; one a node.")],
    to: Annotated[
        str, typer.Option("--return", metavar="HOST:PORT:AE", help="Where results go by C-STORE.")
    ],
    model: Annotated[str, typer.Option(help="3, @champion or another alias.")] = "@champion",
    host: Annotated[
        str, typer.Option(help="Whom to listen for; nobody is asked for a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 11112,
    ae_title: Annotated[str, typer.Option(help="By which it must be called.")] = "MAMMOFLOW",
    calling: Annotated[
        list[str] | None, typer.Option(help="An AE title that may call; without, all may.")
    ] = None,
    quiet: Annotated[
        float, typer.Option(min=0, help="Seconds without an image: the study is complete.")
    ] = 60.0,
    disk: Annotated[str, typer.Option(help="The most that may lie in SPOOL.")] = "20G",
    report: Annotated[
        ReportKind, typer.Option("--sr", help="cad: Mammography CAD SR; 1500: what viewers show.")
    ] = ReportKind.cad,
    identified: Annotated[
        bool, typer.Option("--identified", help="UIDs in the journal, not hashes of them.")
    ] = False,
) -> None:
    """Take studies by C-STORE, and send back what a registered model finds, until Ctrl-C.

    Research use only. Not a medical device.
    """
    with one_sentence(status=2):
        check_writable(spool)
        from flows.listening.deliver import parse_address  # it imports no MLflow

        receiver, most = parse_address(to), _parse_size(disk)
        preflight.check_registry()
        preflight.check_version(model)
        from flows.listening.listen import Settings
        from flows.listening.listen import listen as listen_for

        settings = Settings(
            spool=spool,
            to=receiver,
            host=host,
            port=port,
            title=ae_title,
            callers=tuple(calling or ()),
            quiet=quiet,
            disk=most,
            kind=report.value,
            identified=identified,
        )
        listen_for(model, settings, say)


def _parse_size(text: str) -> int:
    """Bytes of a size such as 20G.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})([MGT])", text)
    if found is None:
        raise UserError(f"--disk {text}: name a size such as 500M, 20G or 1T")
    return int(found[1]) * _UNITS[found[2]]
