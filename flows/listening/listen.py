"""A registered model as a DICOM node. Research use only. Not a medical device."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.listening.answer import Reader
from flows.listening.work import Settings, work
from flows.processes.words import Say
from flows.serving.load import LoadedModel, load_version, prepare_torch
from mammo.base.errors import UserError
from mammo.base.processor import count_cores
from mammo.serving.exams import UnreadFile, examine_files
from mammo.serving.finding import ImageFinding

__all__ = ["Settings", "listen"]


def listen(reference: str, settings: Settings, say: Say) -> None:
    """Answer the studies that come by C-STORE until SIGINT or SIGTERM.

    Args:
        reference: the version.
        settings: of the node.
        say: gets a line with the address, once the node listens.

    Raises:
        UserError: the version cannot be loaded or has no operating point, the spool cannot be used,
            or the address is taken.
    """
    loaded = load_version(reference)
    # Before the thread starts that examines images.
    prepare_torch(loaded)
    work(make_reader(loaded), settings, say)


def make_reader(loaded: LoadedModel) -> Reader:
    """A loaded model as the node asks it: files are read in processes of their own.

    Raises:
        UserError: it has no operating point, so that no report could be made.
    """
    predictor = loaded.predictor
    if predictor.operating_point is None:
        raise UserError(
            f"version {loaded.model.version} was registered without an operating point, so that a "
            f"report could not say whether there is a finding: name a later one by --model"
        )

    def examine(files: Sequence[Path]) -> Iterator[ImageFinding | UnreadFile]:
        return examine_files(predictor, files, count_cores(), "picture")

    return Reader(
        examine, loaded.model, predictor.operating_point, predictor.params.evaluate.aggregate
    )
