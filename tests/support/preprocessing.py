"""Data sets for preprocess, and what it makes of them."""

from pathlib import Path

from mammo.base.settings import Params, load_params
from mammo.data.reading import read_table
from mammo.data.tables import REJECTS
from stages import preprocess

HEADER = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,"
    "machine_id,difficult_negative_case"
)


def tiny(**update: object) -> Params:
    params = load_params()
    section = params.preprocess.model_copy(update={"long_side": 128, **update})
    return params.model_copy(update={"preprocess": section})


def settings(**update: object) -> Params:
    params = load_params()
    section = {"long_side": 96, "max_reject_fraction": 0.99, **update}
    return params.model_copy(update={"preprocess": params.preprocess.model_copy(update=section)})


class Collection:
    """A data folder that grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[str] = []
        (folder / "train_images").mkdir(parents=True)

    def path(self, patient: str, image: str) -> Path:
        return self.folder / "train_images" / patient / f"{image}.dcm"

    def add(self, patient: str, image: str, content: bytes | None = None, side: str = "L") -> Path:
        """Add a row, and a file unless there is no content."""
        path = self.path(patient, image)
        path.parent.mkdir(exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        self.rows.append(f"1,{patient},{image},{side},CC,60,0,0,0,,0,B,29,0")
        (self.folder / "train.csv").write_text("\n".join([HEADER, *self.rows, ""]))
        return path


def made_of(collection: Collection, out: Path, workers: int = 0) -> tuple[dict[str, str], Path]:
    """The reasons by image id of what a run rejects, and its folder."""
    preprocess.run(settings(), collection.folder, out, workers)
    rejects = read_table(out / "rejects.csv", REJECTS)
    return dict(zip(rejects["image_id"], rejects["reason"], strict=True)), out
