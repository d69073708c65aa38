"""The commands that ask a model: predict, serve.

mammoflow predict --help
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flows  # noqa: F401  (its environment must be set before Prefect and MLflow are imported)
from flows.cli.console import check_writable, one_sentence, say
from flows.processes.checked import escape_control_characters
from flows.tracking import preflight
from mammo.base.errors import UserError

app = typer.Typer()

_COLUMNS = [
    *("file", "exam", "image", "laterality", "view", "probability", "x1", "y1", "x2", "y2"),
    *("found_by", "peak_x", "peak_y", "breast_probability", "decision", "version", "snapshot"),
    "notice",
]

_ModelOption = Annotated[str, typer.Option(help="3, @champion or another alias.")]


class Format(StrEnum):
    """How findings are printed."""

    table = "table"
    json = "json"
    csv = "csv"


class ReportKind(StrEnum):
    """The report that `--dicom` writes: a Mammography CAD SR, or what most viewers show."""

    cad = "cad"
    tid_1500 = "1500"


@app.command()
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(help="Files, folders, a DICOMDIR; - for a list of them on stdin."),
    ],
    model: _ModelOption = "@champion",
    out: Annotated[
        Path | None, typer.Option(help="A folder for heatmaps and one exam.json an exam.")
    ] = None,
    dicom: Annotated[
        Path | None, typer.Option(help="A folder for a DICOM SR an exam, and pictures for viewers.")
    ] = None,
    report: Annotated[
        ReportKind, typer.Option("--sr", help="cad: Mammography CAD SR; 1500: what viewers show.")
    ] = ReportKind.cad,
    form: Annotated[Format, typer.Option("--format", help="Of what is printed.")] = Format.table,
    identified: Annotated[
        bool, typer.Option("--identified", help="With the ids of the headers, not hashes of them.")
    ] = False,
) -> None:
    """Say what a registered model finds in mammograms. Research use only. Not a medical device.

    Exits with 1 if a file could not be read or an exam not be reported, with 2 if nothing could
    begin.
    """
    with one_sentence(status=2):
        for folder in (out, dicom):
            if folder is not None:
                check_writable(folder)
                preflight.check_disk(folder, 0)
        if out is not None and dicom is not None and out.resolve() == dicom.resolve():
            raise UserError(f"{out}: --out and --dicom need a folder each")
        preflight.check_registry()
        listing = _list_files(paths)
        preflight.check_version(model)
        loaded = _load(model, reported=dicom is not None)
    with one_sentence():
        images, unread, drawn = _examine(loaded, listing.files, out, shown=dicom is not None)
        exams = _group(loaded, images)
        if out is not None:
            _write_exams(exams, out, identified, drawn)
    unreported = [] if dicom is None else list(_report(exams, unread, loaded, dicom, report))
    _PRINT[form](exams, identified)
    _say_left_out(unreported, unread, listing.left_out)
    raise typer.Exit(1 if unread or unreported else 0)


def _load(model: str, reported: bool) -> Any:
    """A version of the registry, ready to be asked.

    Args:
        model: its number or alias.
        reported: a report is to be made of what it finds.

    Raises:
        UserError: there is none, or it decides nothing that a report could say.
    """
    from flows.serving.load import load_version, prepare_torch

    loaded = load_version(model)
    prepare_torch(loaded)
    if reported and loaded.predictor.operating_point is None:
        raise UserError(
            f"version {loaded.model.version} was registered without an operating point, so "
            f"that a report could not say whether there is a finding: name a later one by "
            f"--model, or leave --dicom out"
        )
    return loaded


def _examine(
    loaded: Any, files: Sequence[Path], out: Path | None, shown: bool
) -> tuple[list[Any], list[Any], set[int]]:
    """Let a model look at files.

    Args:
        loaded: the model.
        files: of images.
        out: where heatmaps are written; None for none.
        shown: whether a report will show the heatmaps of suspicious views.

    Returns:
        The findings, with the heatmaps that a report shows; the files that could not be read; and
        the numbers of the images whose heatmaps were written.
    """
    from mammo.base.processor import count_cores
    from mammo.serving.exam_files import write_heatmap
    from mammo.serving.exams import UnreadFile, examine_files

    point = loaded.predictor.operating_point
    heatmap: Any = "picture" if shown or out is not None else "facts"
    found = examine_files(loaded.predictor, files, count_cores(), heatmap)
    images: list[Any] = []
    unread: list[Any] = []
    drawn: set[int] = set()
    for one in _follow(found, len(files)):
        if isinstance(one, UnreadFile):
            unread.append(one)
            continue
        if out is not None and one.heatmap is not None:
            write_heatmap(out, one)
            drawn.add(one.number)
        # Thousands of them would fill the memory.
        kept = shown and point is not None and one.probability >= point.threshold
        images.append(one if kept else replace(one, heatmap=None))
    return images, unread, drawn


def _group(loaded: Any, images: Sequence[Any]) -> Sequence[Any]:
    """The exams that images belong to, with what the model decides of each."""
    from mammo.serving.finding import group_exams

    predictor = loaded.predictor
    aggregate = predictor.params.evaluate.aggregate
    return group_exams(images, loaded.model, predictor.operating_point, aggregate)


def _write_exams(exams: Sequence[Any], out: Path, identified: bool, drawn: set[int]) -> None:
    from mammo.serving.exam_files import write_exam

    for exam in exams:
        write_exam(out, exam, identified, drawn)


def _say_left_out(unreported: Sequence[str], unread: Sequence[Any], left_out: int) -> None:
    """Name on stderr what is missing in the answer."""
    for sentence in unreported:
        say(f"not reported: {sentence}", err=True)
    for file in unread:
        say(f"cannot be read: {file.source}: {file.reason}", err=True)
    if left_out:
        say(f"{left_out} files in the folders are no DICOM files: left out", err=True)


def _report(
    exams: Sequence[Any], unread: Sequence[Any], loaded: Any, folder: Path, report: ReportKind
) -> Iterator[str]:
    """Write the results of each exam as DICOM files; yield why one of them has none."""
    from mammo.dicom_results.source import group_unread
    from mammo.dicom_results.write import write_results, write_unread

    of_exams = group_unread(Path(file.source) for file in unread)
    for exam in exams:
        sources = {image.number: Path(image.source) for image in exam.images}
        missing = of_exams.pop(exam.key, ())
        try:
            write_results(exam, sources, folder, report.value, unread=missing)
        except UserError as error:
            yield str(error)
    predictor = loaded.predictor
    point, aggregate = predictor.operating_point, predictor.params.evaluate.aggregate
    for images in of_exams.values():
        try:
            write_unread(images, loaded.model, point, aggregate, folder, report.value)
        except UserError as error:
            yield str(error)


def _list_files(paths: Sequence[str]) -> Any:
    """The files that the arguments stand for.

    Raises:
        UserError: there are none, or a path does not exist.
    """
    from mammo.serving.intake import list_files

    named: list[str] = []
    for path in paths:
        named += sys.stdin.read().splitlines() if path == "-" else [path]
    listing = list_files(Path(path) for path in named if path.strip())
    if not listing.files:
        raise UserError("there is no DICOM file among these: name files, or a folder that has some")
    return listing


def _follow(found: Iterable[Any], count: int) -> Iterable[Any]:
    """Show progress on stderr, where it disturbs no output."""
    from rich.progress import track

    console = Console(stderr=True)
    return track(found, "predict", count, console=console, disable=not console.is_terminal)


def _print_table(exams: Sequence[Any], identified: bool) -> None:
    from mammo.serving.finding import NOTICE

    console = Console()
    for exam in exams:
        first = exam.images[0].identity
        name = f"study {first.study} of {first.patient}" if identified else exam.key
        title = f"Exam {name}: {_name_decision(exam.decision)}{exam.probability:.4f}"
        # As text: what a header holds may look like rich's markup.
        table = Table(title=Text(escape_control_characters(title)), title_justify="left")
        for column in ("breast", "view", "file", "probability", "breast at", "found by", "peak at"):
            table.add_column(column, overflow="fold")
        for breast in exam.breasts:
            for image in breast.images:
                box, peak = image.box, image.peak
                cells = (
                    breast.laterality or "?",
                    image.view or "?",
                    str(image.source),
                    f"{image.probability:.4f}",
                    f"{box.x1:.0f}, {box.y1:.0f} to {box.x2:.0f}, {box.y2:.0f}",
                    image.found_by,
                    "" if peak is None else f"{peak.x:.0f}, {peak.y:.0f}",
                )
                table.add_row(*(Text(escape_control_characters(cell)) for cell in cells))
            decided = f"{_name_decision(breast.decision)}{breast.probability:.4f}"
            table.add_row(breast.laterality or "?", "all", "", decided, end_section=True)
        console.print(table)
    if exams:
        _print_model(exams[0], console)
    console.print(NOTICE, highlight=False)


def _print_model(exam: Any, console: Console) -> None:
    model, point = exam.model, exam.operating_point
    snapshot = "no recorded snapshot" if model.snapshot is None else f"snapshot {model.snapshot}"
    line = f"{model.name} version {model.version}, {snapshot}"
    console.print(escape_control_characters(line), highlight=False, markup=False, soft_wrap=True)
    if point is None:
        sentence = "This version was registered without an operating point: nothing is decided."
    else:
        sentence = (
            f"A breast is positive from {point.threshold:.4f} on: the highest F{point.beta:g} of "
            f"the validation women."
        )
    console.print(sentence, highlight=False)


def _name_decision(decision: str | None) -> str:
    return "" if decision is None else f"{decision}, "


def _print_json(exams: Sequence[Any], identified: bool) -> None:
    from mammo.serving.finding import to_document

    documents = [to_document(exam, identified) for exam in exams]
    typer.echo(json.dumps(documents, indent=2, ensure_ascii=False))


def _print_csv(exams: Sequence[Any], identified: bool) -> None:
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(_COLUMNS)
    for exam in exams:
        for breast in exam.breasts:
            for image in breast.images:
                table.writerow(_describe_row(exam, breast, image, identified))
    typer.echo(written.getvalue(), nl=False)


def _describe_row(exam: Any, breast: Any, image: Any, identified: bool) -> list[Any]:
    from mammo.serving.finding import NOTICE

    box, peak = image.box, image.peak
    return [
        image.source,
        image.identity.study if identified else exam.key,
        image.identity.instance if identified else image.key,
        image.laterality,
        image.view,
        f"{image.probability:.9g}",  # as predictions.csv of the stage evaluate
        *(f"{side:.9g}" for side in (box.x1, box.y1, box.x2, box.y2)),
        image.found_by,
        *(("", "") if peak is None else (peak.x, peak.y)),
        f"{breast.probability:.9g}",
        breast.decision,
        exam.model.version,
        exam.model.snapshot,
        NOTICE,
    ]


_PRINT = {Format.table: _print_table, Format.json: _print_json, Format.csv: _print_csv}


@app.command()
def serve(
    model: _ModelOption = "@champion",
    follow: Annotated[
        bool, typer.Option("--follow", help="Take up what the alias means later on.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Whom to listen for; nobody is asked for a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
) -> None:
    """Answer over HTTP what a registered model finds, until Ctrl-C.

    Research use only. Not a medical device.
    """
    with one_sentence(status=2):
        preflight.check_registry()
        preflight.check_version(model)
        from flows.serving.serve import serve as serve_model

        serve_model(model, follow, host, port, typer.echo)
