"""pretraining/params.yaml as typed, validated objects: every key is required.

Where a section of params.yaml says what is needed, its keys are the same ones.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mammo.base.settings import (
    Classifier,
    Evaluate,
    Positive,
    Section,
    Split,
    read_yaml,
    validate,
)

FILE = Path("pretraining/params.yaml")


class Patches(Section):
    """What to cut, or to take, and which women may not be in it."""

    source: str  # a folder: crops by class, or a collection in the layout of data/
    # Whether its women are those of data/: those whom `split` of params.yaml puts, or would put,
    # into validation or test of it are then left out.
    same_women: bool
    kinds: list[str] = Field(min_length=1)  # of lesions.csv: what marks a cancer; others do not
    long_side: Positive  # pixels of the film that is cut
    size: Positive  # pixels of a side of a patch
    context: Annotated[float, Field(ge=1, le=4)]  # a patch's side: times the lesion's longer one
    split: Split  # of the women; a folder of crops may bring its own


class Pretraining(Section):
    """The whole of pretraining/params.yaml."""

    made: list[Literal["backbone"]] = Field(max_length=1)  # nothing, unless it is named
    seed: Annotated[int, Field(ge=0)]
    threads: Positive  # of torch; another count gives other bits
    patches: Patches
    pretrain: Classifier
    evaluate: Evaluate

    @model_validator(mode="after")
    def _keep_test_women_away(self) -> "Pretraining":
        if not self.patches.same_women and Path(self.patches.source).parts[:1] == ("data",):
            raise ValueError(
                "patches.source is data/ itself, so patches.same_women must be true: no network may"
                " learn from women in validation or test"
            )
        return self

    @model_validator(mode="after")
    def _start_from_nothing_of_ours(self) -> "Pretraining":
        if self.pretrain.weights not in ("none", "imagenet"):
            raise ValueError(
                f"pretrain.weights = {self.pretrain.weights!r}: a pretraining starts from imagenet"
                " or none"
            )
        if self.pretrain.processes != 1:
            raise ValueError("pretrain.processes: a pretraining runs in one process; leave it out")
        return self


def load_pretraining(path: Path = FILE) -> Pretraining:
    """Read and validate a params file of a pretraining.

    Raises:
        UserError: naming the file and each key that is missing, unknown or out of range.
    """
    return validate(Pretraining, read_yaml(path), str(path))
