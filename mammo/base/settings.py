"""params.yaml as typed, validated objects.

Every key is required and an unknown key is an error: what a model was made with stands in one file
and nowhere else. Three keys may be left out: classifier.processes and tune.at_once, which are then
1, and explain.method, which is then grad_cam.
`recipes/*.yaml` are whole files of the same form.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from mammo.base.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
TargetColumn = Literal["cancer", "biopsy", "invasive", "difficult_negative_case"]


WEIGHTS = "weights"
"""The folder of weights to start from. DVC tracks what is in it, so that a snapshot names them."""

MOVED = {"policy": "plan.yaml"}
"""Keys that params.yaml had in earlier versions, and the file that has them now."""

_WEIGHTS_FILE = re.compile(WEIGHTS + r"/\w[\w.-]*\.safetensors")


class Section(BaseModel):
    """A group of settings: immutable, strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _leave_out_what_may_be_left_out(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """Write no setting that has its default: what was made before there was one stays as it is.

        Keys of checkpoints, architecture.json and the report are made of this.
        """
        fields, written = type(self).model_fields, serialize(self)
        return {
            name: value
            for name, value in written.items()
            if fields[name].is_required() or getattr(self, name) != fields[name].default
        }


S = TypeVar("S", bound=Section)


class Preprocess(Section):
    """DICOM to 8-bit PNG."""

    long_side: Positive  # pixels of the longer side of the image written
    full_decode: bool  # at full resolution, and scaled in one step; for comparison
    max_reject_fraction: Fraction  # the stage fails if more of the files are unreadable


class Split(Section):
    """Shares of the women; the rest is for training."""

    validation: Fraction
    test: Fraction
    salt: str  # another salt is another division of the women

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nobody for training")
        return self


class Detector(Section):
    """The YOLO breast detector."""

    architecture: str  # an ultralytics model file, such as yolo11n.yaml
    weights: str  # "none", or weights/NAME.safetensors to start from
    image_size: Annotated[int, Field(gt=0, multiple_of=32)]
    epochs: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0, le=1)]


class Crop(Section):
    """Cutting the breast out."""

    confidence: Fraction  # a detection below this does not count
    margin: Fraction  # of the box's longer side, added on each side


class Augment(Section):
    """Random changes of a training image; 0 switches one off."""

    horizontal_flip: Fraction  # probability; the breast then hangs from the right edge
    vertical_flip: Fraction  # probability
    rotation: Annotated[float, Field(ge=0, le=45)]  # degrees, uniform in +-rotation
    zoom: Annotated[float, Field(ge=0, lt=1)]  # scale uniform in 1 +- zoom
    shift: Annotated[float, Field(ge=0, lt=1)]  # of the side, uniform in +-shift
    brightness: Annotated[float, Field(ge=0, lt=1)]  # factor uniform in 1 +- brightness
    contrast: Annotated[float, Field(ge=0, lt=1)]  # factor uniform in 1 +- contrast


class Classifier(Section):
    """The network and how it is trained; tuning replaces head_width, dropout, learning_rate."""

    target: list[TargetColumn] = Field(min_length=1)  # a positive has any of these
    image_height: Positive  # pixels
    image_width: Positive
    backbone: str  # efficientnet_lite0, _lite1, _lite2 or a torchvision classification model
    weights: str  # "imagenet", "none", or weights/NAME.safetensors to start from
    trainable_layers: Literal["all"] | Annotated[int, Field(ge=0)]  # last leaf layers of it
    freeze_batch_norm: bool
    # Of the backbone, in training and in use. Weights, head, loss and optimiser are in float32
    # always, without TF32.
    precision: Literal["float32", "bfloat16"]
    head_width: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    backbone_rate: Annotated[float, Field(gt=0, le=1)]  # learning rate of the backbone, relative
    weight_decay: Annotated[float, Field(ge=0)]
    batch_size: Positive  # of all processes together
    # That train together, each on a GPU of its own or all on the CPU: train_classifier alone. Their
    # number decides how gradients are summed, hence the bits.
    processes: Positive = 1
    epochs: Positive
    patience: Positive  # epochs without improvement before training stops
    select_by: Literal["auroc", "average_precision", "loss"]  # on validation
    # The network that is scored and kept averages the trained one's weights: this share of the
    # average stays at each step (Polyak & Juditsky 1992, exponentially). 0: the trained one itself.
    average: Annotated[float, Field(ge=0, lt=1)]
    balance: Literal["none", "upsample", "weight"]  # of positives
    balance_factor: Annotated[float, Field(gt=0)]  # times over
    augment: Augment

    @model_validator(mode="after")
    def _share_out_batches_evenly(self) -> "Classifier":
        if self.batch_size % self.processes:
            raise ValueError(
                f"batch_size = {self.batch_size} cannot be shared out evenly among processes ="
                f" {self.processes}: change one of them"
            )
        return self


class Space(Section):
    """What Optuna may choose from: lists are choices, pairs are ranges."""

    head_width: list[Positive] = Field(min_length=1)
    dropout: tuple[Fraction, Fraction]  # uniform
    learning_rate: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]  # log

    @model_validator(mode="after")
    def _ranges_run_upwards(self) -> "Space":
        for name in ("dropout", "learning_rate"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must run from low to high, not from {low} to {high}")
        return self


class Tune(Section):
    """The search for head width, dropout and learning rate."""

    trials: Positive
    epochs: Positive  # of each trial
    # Trials that know nothing of each other, so that as many GPUs may run them. It decides what is
    # proposed and pruned; on how many GPUs they run does not.
    at_once: Positive = 1
    pruning: bool  # stop a trial that is worse than the median so far
    space: Space


class Evaluate(Section):
    """Scoring."""

    target: list[TargetColumn] = Field(min_length=1)
    aggregate: Literal["max", "mean"]  # of the views of a breast
    beta: Annotated[float, Field(gt=0)]
    bootstrap: Annotated[int, Field(ge=100)]  # resamples of the women
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of the intervals


class Explain(Section):
    """Heatmaps."""

    # Of the pictures and the pointing game of the stage explain. The heatmap that a served model
    # gives with its answer is Grad-CAM always.
    method: Literal["grad_cam", "layer_cam"] = "grad_cam"
    images: Positive  # of each kind: true positives, false positives, missed cancers
    kinds: list[str] = Field(min_length=1)  # of lesions.csv: what marks a cancer
    tolerance: Annotated[float, Field(ge=0)]  # pixels around a lesion that still count as a hit


class Audit(Section):
    """How far a re-run on a machine that computes otherwise may differ and still be the same model.

    On a machine with the same arithmetic none of it counts: there the bytes must be the same. No
    stage depends on it.
    """

    pixels: Annotated[int, Field(ge=0, le=255)]  # grey levels, of an image made before training
    probability: Fraction  # of an image by the recorded weights now, against the recorded one
    auroc_margin: Fraction  # of the difference of the two models
    average_precision_margin: Fraction
    rank_correlation: Annotated[float, Field(ge=-1, le=1)]  # at least: Spearman's, of the breasts
    agreement: Fraction  # at least: the breasts of which both models decide alike
    women: Positive  # with fewer that have, or that have no positive breast: too small to tell
    bootstrap: Annotated[int, Field(ge=100)]  # paired resamples of the women
    confidence: Annotated[float, Field(gt=0, lt=1)]  # of the intervals


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    threads: Positive  # of torch; another count gives other bits
    # The work pool of crop_rois, evaluate and explain, where the networks are used. Trainings
    # always want the pool gpu. No stage depends on it.
    prediction_pool: Literal["cpu", "gpu"]
    preprocess: Preprocess
    split: Split
    detector: Detector
    crop: Crop
    classifier: Classifier
    tune: Tune
    evaluate: Evaluate
    explain: Explain
    audit: Audit

    @model_validator(mode="after")
    def _keep_weights_where_dvc_tracks_them(self) -> "Params":
        for key, value in (
            ("detector.weights", self.detector.weights),
            ("classifier.weights", self.classifier.weights),
        ):
            if value not in ("none", "imagenet") and not _WEIGHTS_FILE.fullmatch(value):
                raise ValueError(
                    f"{key} = {value!r} is in no snapshot: put the file into {WEIGHTS}/, run "
                    f"`dvc add {WEIGHTS}/NAME.safetensors` and name it so"
                )
        return self


def load_params(path: Path = Path("params.yaml"), *, registered: bool = False) -> Params:
    """Read and validate a params file.

    Args:
        path: of the file.
        registered: it is of a registered version: keys of an earlier layout (`MOVED`) are accepted.

    Raises:
        UserError: naming the file and each key that is missing, unknown or out of range.
    """
    content = read_yaml(path)
    moved = [key for key in MOVED if isinstance(content, dict) and key in content]
    if moved and not registered:
        raise UserError(f"{path}: {moved[0]} stands in {MOVED[moved[0]]} now: move it there")
    return validate(Params, _without_moved(content), str(path))


def parse_params(text: str) -> Params:
    """The params.yaml of a registered version, whose keys may be of an earlier layout.

    Raises:
        UserError: naming each key that is missing, unknown or out of range.
    """
    return validate(Params, _without_moved(yaml.safe_load(text)), "params.yaml of the version")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, not validated.

    Raises:
        UserError: if there is no such file, or it is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; run from the project's folder") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from None


def validate(form: type[S], content: Any, name: str) -> S:
    """The content of a file as an object.

    Raises:
        UserError: naming the file and each key that is missing, unknown or out of range.
    """
    try:
        return form.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(_describe(fault) for fault in error.errors())
        raise UserError(f"{name}: {faults}") from None


def _without_moved(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if key not in MOVED}


def _describe(fault: ErrorDetails) -> str:
    """One pydantic error as a phrase that begins with the key's path in the file."""
    key = ".".join(str(part) for part in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a known setting"
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "value_error" and isinstance(fault["input"], dict) and fault["loc"]:
        return f"{key}: {fault['ctx']['error']}"  # a rule about settings of one section
    if not fault["loc"]:  # a rule about several settings names them itself
        return str(fault["ctx"]["error"]) if "ctx" in fault else f"the file: {fault['msg']}"
    return f"{key} = {fault['input']!r}: {fault['msg']}"
