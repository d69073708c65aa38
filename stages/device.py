"""Which stages want a GPU, and what a stage says of the device that it computes on."""

from mammo.base.progress import say
from mammo.base.settings import Params
from mammo.learning.device import choose_device, describe_device, is_chosen_by_hand

_TRAININGS = ("train_detector", "tune_classifier", "train_classifier", "pretrain")
_PREDICTIONS = ("crop_rois", "evaluate", "explain")


def wants_gpu(stage: str, params: Params | None = None) -> bool:
    """Whether dvc.yaml sends a stage to the pool gpu: its `meta` says the same, and a test so.

    Args:
        stage: by name.
        params: of the pipeline, which may send predictions there. None: of a pretraining, which
            makes none.
    """
    if stage in _PREDICTIONS and params is not None:
        return params.prediction_pool == "gpu"
    return stage in _TRAININGS


def announce_device(stage: str, params: Params | None = None) -> None:
    """Say which card a stage computes on, or that it wants one and there is none.

    Args:
        stage: by name.
        params: as for `wants_gpu`.

    Raises:
        UserError: as `choose_device`. A stage calls this first, so it comes before any work.
    """
    device = choose_device()
    if device.type == "cuda":
        say(f"{stage}: on {device}, {describe_device(device)['gpu']}")
    elif wants_gpu(stage, params) and not is_chosen_by_hand():
        say(f"{stage}: torch sees no GPU, which this stage wants: it computes on the CPU")
