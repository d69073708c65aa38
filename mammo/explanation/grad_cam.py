"""Where the classifier looked (Grad-CAM or a relative), and how often that is where the lesion is.

Both weigh the channels of the last feature map. Where the network's head takes their mean over the
picture, as ours do, the gradient is the same in each cell of a channel: then HiResCAM, XGrad-CAM
and ShapleyCAM give Grad-CAM's map, and the elementwise Grad-CAM gives LayerCAM's. So does
Grad-CAM++, as long as no channel alone raises the logit by much, but for a constant in the library
that keeps it from dividing by zero.
"""

import copy
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from torch import nn

from mammo.base.settings import Classifier as Settings
from mammo.classifier.inputs import to_input
from mammo.classifier.network import Classifier, get_cam_layer
from mammo.explanation.overlay import Heat
from mammo.imaging.fitting import place_in_frame
from mammo.imaging.geometry import Box
from mammo.imaging.gray_images import Gray

METHODS: dict[str, type[BaseCAM]] = {
    "grad_cam": GradCAM,
    "layer_cam": LayerCAM,
}
"""What `explain.method` may name: Selvaraju et al. 2017, and Jiang et al. 2021, who leave out what
lowers the logit. EigenCAM and EigenGradCAM are not among them: the singular vectors that they take
have a sign that is chance, and bits that depend on the processor."""


def compute_heatmap(
    model: nn.Module, roi: Gray, settings: Settings, method: type[BaseCAM] = GradCAM
) -> Heat:
    """The heat that speaks for a positive, on the device that the network is on.

    It is computed in float32, whatever the network's precision.

    Several threads may call it at the same time with one network: the network is not changed.

    Args:
        model: as from `network.load_classifier`, in eval mode.
        roi: (H, W) of 0..255.
        settings: those the model was made with; they give its input size.
        method: of pytorch-grad-cam, such as those of `METHODS`; of the positive logit.

    Returns:
        (H, W) in [0, 1], of the ROI's size. The maximum is 1, except that the map is 0 throughout
        if no part of the image raises the positive logit.
    """
    height, width = roi.shape
    placement = place_in_frame(width, height, settings.image_width, settings.image_height)
    device = next(model.parameters()).device
    inputs = to_input(roi, settings.image_height, settings.image_width)[None].to(device)
    # Gradients must reach the layer even if every parameter before it is frozen.
    inputs.requires_grad_(True)
    twin = _copy_sharing_weights(model)
    if isinstance(twin, Classifier):
        twin.precision = "float32"  # the gradients go to NumPy, which does not know bfloat16
    with torch.enable_grad(), method(twin, [get_cam_layer(twin)]) as cam:
        heat = cam(inputs, [BinaryClassifierOutputTarget(1)])[0]
    # The rest of the input is padding.
    part = heat[: placement.height, : placement.width]
    full = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    highest = full.max()
    return np.asarray(full / highest if highest > 0 else full, np.float32)


def _copy_sharing_weights(model: nn.Module) -> nn.Module:
    """Copy the network's modules; the copy shares the weights' memory.

    Grad-CAM registers hooks on modules and stores gradients with weights. On the network itself
    they would record what another thread sends through it, which may be another woman's image.
    """
    weights = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, {**weights, **{id(b): b for b in model.buffers()}})


def hits_lesion(
    peak_at: tuple[float, float] | None, lesions: Sequence[Box], tolerance: float
) -> bool:
    """Play the pointing game (Zhang et al. 2016): whether the peak lies in a lesion's box.

    Args:
        peak_at: (x, y) in pixels; None never hits.
        lesions: in the same pixels.
        tolerance: pixels around a box that still count.
    """
    return peak_at is not None and any(
        lesion.grow(tolerance).contains(*peak_at) for lesion in lesions
    )


def compute_chance(mask: NDArray[np.bool_], lesions: Sequence[Box], tolerance: float) -> float:
    """Compute how often a point drawn uniformly from the mask would hit: the rate of guessing.

    Args:
        mask: (H, W), where the breast is; at least one pixel.
        lesions: in pixels of the mask.
        tolerance: pixels around a box that still count.
    """
    height, width = mask.shape
    inside = np.zeros_like(mask)
    for lesion in lesions:
        box = lesion.grow(tolerance).clip(width, height)
        # As for `contains`, a pixel is in the box if its top left corner is.
        rows = slice(int(np.ceil(box.y1)), int(np.ceil(box.y2)))
        inside[rows, int(np.ceil(box.x1)) : int(np.ceil(box.x2))] = True
    return float((inside & mask).sum() / mask.sum())
