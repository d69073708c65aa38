"""ultralytics, tamed: import it from here only.

It writes its settings to the home folder, asks the network whether it is there, starts runs of its
own with whatever experiment tracker is installed, and prints. All that is switched off before its
first import, and its settings go to a folder that lives as long as the process.
"""

import atexit
import math
import os
import shutil
import tempfile
from typing import Any

_CONFIG = tempfile.mkdtemp(prefix="yolo-config-")
atexit.register(shutil.rmtree, _CONFIG, ignore_errors=True)
os.environ.update(
    YOLO_CONFIG_DIR=_CONFIG, YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false"
)

import torch  # noqa: E402
import ultralytics.utils  # noqa: E402
import ultralytics.utils.loss  # noqa: E402
import ultralytics.utils.tal  # noqa: E402
from ultralytics.data import build_yolo_dataset  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils import torch_utils  # noqa: E402
from ultralytics.utils.metrics import bbox_iou  # noqa: E402
from ultralytics.utils.nms import non_max_suppression  # noqa: E402
from ultralytics.utils.tal import TaskAlignedAssigner  # noqa: E402

__all__ = [
    "DetectionModel",
    "DetectionTrainer",
    "build_yolo_dataset",
    "keep_threads",
    "non_max_suppression",
]

_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "sync")
ultralytics.utils.SETTINGS.update(dict.fromkeys(_INTEGRATIONS, False))


class PortableAssigner(TaskAlignedAssigner):
    """Which anchor learns which box: the original, but for how it takes its power of the scores.

    The power of 0.5 is a square root, and MKL's starts from an instruction that each maker's
    processors compute their own way. Where the exponent is a tensor, a power is computed by Sleef,
    of exact instructions only.
    """

    def __init__(self, *, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(alpha=1.0, **kwargs)
        self.exponent = alpha

    def get_box_metrics(self, pd_scores: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The scores of all anchors to the power, and then the original with the power of one."""
        powers = pd_scores.pow(torch.full_like(pd_scores, self.exponent))
        return super().get_box_metrics(powers, *args, **kwargs)


def portable_iou(
    box1: torch.Tensor,
    box2: torch.Tensor,
    *,
    CIoU: bool = False,  # noqa: N803  (the original's name)
    eps: float = 1e-7,
    **kwargs: Any,
) -> torch.Tensor:
    """How far boxes overlap: the original, but for the arc tangents of the complete IoU.

    MKL's hang on the maker of the processor as its square root does; those of two arguments are
    Sleef's. The complete IoU is the distance IoU less v^2 / (1 - IoU + v), where v compares the
    boxes' shapes (Zheng et al. 2020).

    Args:
        box1: (N, 4) corners x1, y1, x2, y2, with x1 <= x2 and y1 <= y2.
        box2: the same.
        CIoU: whether the complete IoU is wanted.
        eps: keeps the original's quotients finite.
        kwargs: of the original.

    Returns:
        (N, 1).
    """
    if not CIoU:
        return bbox_iou(box1, box2, eps=eps, **kwargs)
    shape1, shape2 = (
        torch.atan2(box[..., 2:3] - box[..., 0:1], box[..., 3:4] - box[..., 1:2] + eps)
        for box in (box1, box2)
    )
    v = (4 / math.pi**2) * (shape2 - shape1).square()
    with torch.no_grad():
        weight = v / (1 - bbox_iou(box1, box2, eps=eps, **kwargs) + v + eps)
    return bbox_iou(box1, box2, DIoU=True, eps=eps, **kwargs) - v * weight


# Where the loss and the assigner look them up.
ultralytics.utils.loss.TaskAlignedAssigner = PortableAssigner  # type: ignore[assignment,misc]
ultralytics.utils.loss.bbox_iou = portable_iou  # type: ignore[assignment]
ultralytics.utils.tal.bbox_iou = portable_iou  # type: ignore[assignment]


def keep_threads(count: int) -> None:
    """Let ultralytics set torch's threads to `count`.

    On choosing the CPU it sets them to the number of cores less one: other bits on every machine.
    """
    ultralytics.utils.NUM_THREADS = torch_utils.NUM_THREADS = count
