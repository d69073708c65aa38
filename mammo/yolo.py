"""ultralytics, tamed: import it from here only.

It writes its settings to the home folder, asks the network whether it is there, starts runs of its
own with whatever experiment tracker is installed, and prints. All that is switched off before its
first import, and its settings go to a folder that lives as long as the process.
"""

import atexit
import os
import shutil
import tempfile

_CONFIG = tempfile.mkdtemp(prefix="yolo-config-")
atexit.register(shutil.rmtree, _CONFIG, ignore_errors=True)
os.environ.update(
    YOLO_CONFIG_DIR=_CONFIG, YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false"
)

import ultralytics.utils  # noqa: E402
from ultralytics.data import build_yolo_dataset  # noqa: E402
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils import torch_utils  # noqa: E402
from ultralytics.utils.nms import non_max_suppression  # noqa: E402

__all__ = [
    "DetectionModel",
    "DetectionTrainer",
    "build_yolo_dataset",
    "keep_threads",
    "non_max_suppression",
]

_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "sync")
ultralytics.utils.SETTINGS.update(dict.fromkeys(_INTEGRATIONS, False))


def keep_threads(count: int) -> None:
    """Let ultralytics set torch's threads to `count`.

    On choosing the CPU it sets them to the number of cores less one: other bits on every machine.
    """
    ultralytics.utils.NUM_THREADS = torch_utils.NUM_THREADS = count
