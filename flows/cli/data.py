"""The commands about data sets: check, phantom, mini-mias, cbis-ddsm, cbis-masses, add.

mammoflow data --help
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_new, check_readable, one_sentence, unwind_at_sigterm
from flows.tracking import preflight
from mammo.base.settings import load_params

EXAMPLES = 5
"""Files and rows that a finding names; the others are counted."""

app = typer.Typer(no_args_is_help=True, help="Make or bring in data sets, in our data/ layout.")


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="In our layout, as data/ is.")],
) -> None:
    """Look at every table and file as training would, before `dvc add`; changes nothing.

    Exits with 1 if something must be mended, with 2 if it cannot begin.
    """
    with one_sentence(status=2):
        settings = load_params().preprocess  # it says how images are read
        check_readable(folder)
    from mammo.base.processor import count_cores
    from mammo.datasets.check import check_data

    with one_sentence():
        checked = check_data(folder, settings, count_cores())
    console = Console()
    for mend, title in ((True, "To be mended"), (False, "To be known")):
        findings = [finding for finding in checked.findings if finding.mend is mend]
        if findings:
            console.print(_make_findings_table(title, findings))
    console.print(
        f"{checked.read} of {checked.rows} images of {checked.patients} women can be read; "
        + ("everything is in order." if checked.in_order else "something must be mended."),
        style="bold",
    )
    raise typer.Exit(0 if checked.in_order else 1)


def _make_findings_table(title: str, findings: list[Any]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("what", overflow="fold")
    table.add_column("times", justify="right")
    table.add_column("where", overflow="fold")
    for finding in findings:
        shown = ", ".join(finding.where[:EXAMPLES])
        more = ", ..." if len(finding.where) > EXAMPLES else ""
        # As text: a file's name may look like rich's markup.
        table.add_row(Text(finding.what), str(len(finding.where)), Text(shown + more))
    return table


@app.command("phantom")
def phantom(
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
) -> None:
    """Write the sample: deterministic digital phantoms as DICOM."""
    with one_sentence(status=2):
        check_new(folder)
    from mammo.datasets.phantom.draw import write_phantoms

    with one_sentence():
        write_phantoms(folder)


@app.command("mini-mias")
def mini_mias(
    source: Annotated[Path, typer.Argument(help="The folder with labels.csv and images/.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
) -> None:
    """Turn the mini-MIAS films (research use only) into our layout."""
    _check_folders(source, folder)
    from mammo.datasets.mini_mias import convert_mini_mias

    with one_sentence():
        convert_mini_mias(source, folder)


@app.command("cbis-ddsm")
def cbis_ddsm(
    source: Annotated[Path, typer.Argument(help="The archive: its CSV files and DICOM files.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
) -> None:
    """Turn CBIS-DDSM, of The Cancer Imaging Archive, into our layout."""
    _check_folders(source, folder)
    from mammo.datasets.cbis_ddsm import convert_cbis_ddsm

    with one_sentence():
        convert_cbis_ddsm(source, folder)


@app.command("cbis-masses")
def cbis_masses(
    source: Annotated[Path, typer.Argument(help="The folder with train/ and val/ of crops.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist.")],
) -> None:
    """Turn crops of masses by class into what a pretraining takes."""
    _check_folders(source, folder)
    from mammo.datasets.cbis_masses import convert_cbis_masses

    with one_sentence():
        convert_cbis_masses(source, folder)


def _check_folders(source: Path, folder: Path) -> None:
    """Look, before anything is read, whether one folder can be made of another; exit with 2."""
    with one_sentence(status=2):
        check_readable(source)
        check_new(folder)


@app.command("add")
def add(
    folder: Annotated[Path, typer.Argument(help="New exams, in the layout of data/.")],
) -> None:
    """Merge new exams into data/, all or none of them, and version it with DVC."""
    with one_sentence(status=2):
        preflight.check_clone(Path.cwd())
        check_readable(folder)
        preflight.check_disk(Path.cwd(), 0)
        preflight.check_data(Path.cwd())
    from flows.pipeline.add_data import add_data

    unwind_at_sigterm()
    with one_sentence():
        count = add_data(Path.cwd(), folder, typer.echo)
    typer.echo(f"{count} images added. To keep them, and to have them retrained:")
    typer.echo(f'  git commit -m "data: {count} images of {folder.name}" data.dvc')
    typer.echo("  dvc push data.dvc        # if there is a remote")
    typer.echo("  git push                 # mammoflow up watches the branch; or mammoflow retrain")
