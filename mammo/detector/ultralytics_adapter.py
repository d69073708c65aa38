"""ultralytics without its side effects: other modules import it from this one only.

By itself, ultralytics writes its settings to the home folder, looks for an internet connection,
starts runs with any experiment tracker that is installed, and prints. All that is switched off
before its first import, and its settings go to a folder that is removed when the process ends. It
also replaces a function of Pillow, which gets its own back.
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

import PIL.Image  # noqa: E402
import torch  # noqa: E402

_open_image = PIL.Image.open

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

# ultralytics replaces it by a function that, for each file that Pillow does not know, tries to
# install a package, and ends with another error than Pillow's.
PIL.Image.open = _open_image

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
    """Decides which anchor learns which box: ultralytics' own, with another power of the scores.

    The power of 0.5 is a square root, and MKL's starts from an instruction that the processors of
    each maker compute differently. If the exponent is a tensor, Sleef computes the power, which
    uses exact instructions only.
    """

    def __init__(self, *, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(alpha=1.0, **kwargs)
        self.exponent = alpha

    def get_box_metrics(self, pd_scores: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Raise the scores of all anchors to the power; call the original with a power of one."""
        powers = pd_scores.pow(torch.full_like(pd_scores, self.exponent))
        original: Any = super()  # without types
        return original.get_box_metrics(powers, *args, **kwargs)


def portable_iou(
    box1: torch.Tensor,
    box2: torch.Tensor,
    *,
    CIoU: bool = False,  # noqa: N803  (the original's name)
    eps: float = 1e-7,
    **kwargs: Any,
) -> torch.Tensor:
    """How much boxes overlap: ultralytics' own, with other arc tangents in the complete IoU.

    MKL's arc tangents depend on the maker of the processor, as its square root does; those of two
    arguments are Sleef's. The complete IoU is the distance IoU less v^2 / (1 - IoU + v), where v
    compares the boxes' shapes (Zheng et al. 2020).

    Args:
        box1: (N, 4) corners x1, y1, x2, y2, with x1 <= x2 and y1 <= y2.
        box2: the same.
        CIoU: whether the complete IoU is wanted.
        eps: keeps the original's quotients finite.
        kwargs: passed on to the original.

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


# In the modules where the loss and the assigner look these names up.
_loss: Any = ultralytics.utils.loss
_tal: Any = ultralytics.utils.tal
_loss.TaskAlignedAssigner = PortableAssigner
_loss.bbox_iou = _tal.bbox_iou = portable_iou


def keep_threads(count: int) -> None:
    """Let ultralytics set torch's threads to `count`.

    When it chooses the CPU, it would set them to the number of cores less one, and the bits would
    depend on the machine.
    """
    modules: tuple[Any, ...] = (ultralytics.utils, torch_utils)
    for module in modules:
        module.NUM_THREADS = count
