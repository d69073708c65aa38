"""A fingerprint of a machine's arithmetic: one hash for each family of kernels that a stage uses.

    python -m mammo.assurance.fingerprint  # as JSON, with the pins and threads of the stages
    mammoflow fingerprint                  # as a table

Two machines with the same fingerprint can be expected to train the same model, bit for bit; where a
family differs, its name says why they do not. Inputs are random whole numbers, divided: every
processor does that alike, so a difference comes from the kernels. On a machine with a GPU that
stages would use (`mammo.learning.device`), torch's families are computed on the GPU as well, in the
mode that training uses, and those that `classifier.precision` changes in bfloat16 too.

Kernels that no stage uses are left out, such as MKL's square root, which differs between any two
makers of processors: see docs/portability.md.
"""

import hashlib
import io
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mammo.base.determinism import pin
from mammo.base.errors import UserError
from mammo.base.settings import load_params
from mammo.imaging.png import encode_png
from mammo.learning.device import choose_device

SEED = 20

Result = Tensor | NDArray[Any] | np.generic | bytes
Family = Callable[[torch.device], Iterator[Result]]


def compute_fingerprint(threads: int) -> dict[str, str]:
    """Compute a hash, 16 hex digits, of each family by its name; a GPU's end in "on the GPU".

    Args:
        threads: torch's, as in params.yaml: their number decides how sums are split.
    """
    pin(SEED, threads)
    found = {}
    for name, family in {**TORCH, **OTHERS}.items():
        pin(SEED, threads)
        found[name] = _hash_results(family(torch.device("cpu")))
    device = choose_device()
    if device.type == "cuda":
        for name, family in {**TORCH, **BFLOAT16}.items():
            pin(SEED, threads)
            found[f"{name} on the GPU"] = _hash_results(family(device))
    return found


def _hash_results(results: Iterator[Result]) -> str:
    digest = hashlib.sha256()
    for result in results:
        if isinstance(result, Tensor):
            if result.dtype == torch.bfloat16:  # NumPy does not know it; float32 holds it exactly
                result = result.float()
            result = result.detach().cpu().contiguous().numpy()
        content = result if isinstance(result, bytes) else np.ascontiguousarray(result).tobytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def _numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Evenly spread in [-2, 2): multiples of 2^-22, so that nothing is rounded."""
    whole = np.random.default_rng((SEED, seed)).integers(-(2**23), 2**23, shape)
    return np.asarray(whole * np.float32(2**-22), np.float32)


def _tensor(device: torch.device, *shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(_numbers(*shape, seed=seed)).to(device)


def _matrix_product(device: torch.device) -> Iterator[Result]:
    """Heads of classifiers, attention, distances: forward and backward."""
    for rows, inner, columns in ((1, 1280, 64), (16, 1280, 128), (16, 2048, 512), (300, 257, 65)):
        left = _tensor(device, rows, inner, seed=1).requires_grad_()
        right = _tensor(device, columns, inner, seed=2).requires_grad_()
        product = functional.linear(left, right, _tensor(device, columns, seed=3))
        torch.autograd.backward(product, _tensor(device, rows, columns, seed=4))
        yield from _and_gradients(product, left, right)
    yield torch.bmm(_tensor(device, 3, 40, 70, seed=5), _tensor(device, 3, 70, 50, seed=6))


# (images, channels in, height, width, channels out, side of the kernel, stride, groups)
_CONVOLUTIONS = (
    (16, 3, 96, 64, 32, 3, 2, 1),
    (16, 32, 48, 32, 32, 3, 1, 32),
    (16, 96, 24, 16, 24, 1, 1, 1),
    (4, 192, 12, 8, 192, 5, 1, 192),
    (4, 64, 24, 16, 64, 3, 1, 1),
    (4, 16, 64, 64, 32, 3, 2, 1),
    (2, 48, 24, 16, 48, 7, 1, 48),
    (1, 3, 384, 256, 32, 3, 2, 1),
)


def _convolution(device: torch.device, backward: bool) -> Iterator[Result]:
    for layout in (torch.contiguous_format, torch.channels_last):
        for seed, (count, channels, height, width, out, side, stride, groups) in enumerate(
            _CONVOLUTIONS
        ):
            images = _tensor(device, count, channels, height, width, seed=seed)
            images = images.to(memory_format=layout).requires_grad_()
            kernels = _tensor(device, out, channels // groups, side, side, seed=seed + 50)
            kernels = kernels.to(memory_format=layout).requires_grad_()
            made = functional.conv2d(images, kernels, None, stride, side // 2, groups=groups)
            if backward:
                torch.autograd.backward(made, _tensor(device, *made.shape, seed=seed + 100))
                yield from _and_gradients(images, kernels)
            else:
                yield made


def _convolution_forward(device: torch.device) -> Iterator[Result]:
    yield from _convolution(device, backward=False)


def _convolution_backward(device: torch.device) -> Iterator[Result]:
    yield from _convolution(device, backward=True)


def _normalisation(device: torch.device) -> Iterator[Result]:
    """Batch norm learning and applied, layer and group norm, with their gradients."""
    images = _tensor(device, 8, 32, 24, 16, seed=7)
    batch_norm = nn.BatchNorm2d(32).to(device)
    for layout in (torch.contiguous_format, torch.channels_last):
        for training in (True, False):
            batch_norm.train(training)
            given = images.to(memory_format=layout, copy=True).requires_grad_()
            made = batch_norm(given)
            torch.autograd.backward(made, _tensor(device, *made.shape, seed=8))
            yield from _and_gradients(made, given, *batch_norm.parameters())
            yield from batch_norm.buffers()
    given = images.permute(0, 2, 3, 1).contiguous().requires_grad_()
    made = functional.layer_norm(given, (32,))
    torch.autograd.backward(made, _tensor(device, *made.shape, seed=9))
    yield from _and_gradients(made, given)
    yield functional.group_norm(images, 8)


def _activation(device: torch.device) -> Iterator[Result]:
    """Activations, pooling and losses, with their gradients."""
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        functional.relu6,
        functional.silu,
        functional.gelu,
        functional.hardswish,
        torch.sigmoid,
        lambda x: functional.softmax(x, 1),
        lambda x: functional.max_pool2d(x, 3, 2, 1),
        lambda x: functional.adaptive_avg_pool2d(x, 1),
        lambda x: functional.interpolate(x, scale_factor=2.0, mode="nearest"),
        lambda x: functional.binary_cross_entropy_with_logits(x, (x.detach() > 0).float()),
        lambda x: functional.cross_entropy(x, x.detach().argmax(1)),
    )
    for layout in (torch.contiguous_format, torch.channels_last):
        for function in functions:
            given = _tensor(device, 4, 24, 33, 18, seed=10)
            given = (4 * given).to(memory_format=layout).requires_grad_()
            made = function(given)
            torch.autograd.backward(made, _tensor(device, *made.shape, seed=11))
            yield from _and_gradients(made, given)


def _in_bfloat16(family: Family) -> Family:
    """The same computation under the autocast of `classifier.precision`."""

    def compute_in_bfloat16(device: torch.device) -> Iterator[Result]:
        with torch.autocast(device.type, torch.bfloat16):
            yield from family(device)

    return compute_in_bfloat16


def _optimiser_step(device: torch.device) -> Iterator[Result]:
    """Five steps as trainings take them: clipped gradients, AdamW, an average of the weights."""
    shapes = ((64, 32, 3, 3), (1000, 129), (77,))
    weights = [nn.Parameter(_tensor(device, *s, seed=i)) for i, s in enumerate(shapes)]
    averages = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01, fused=True)
    averaging: Any = get_ema_multi_avg_fn  # without types in torch
    for step in range(5):
        for number, weight in enumerate(weights):
            weight.grad = _tensor(device, *weight.shape, seed=10 * step + number)
        nn.utils.clip_grad_norm_(weights, 10.0)
        optimizer.step()
        averaging(0.9)(averages, [weight.detach() for weight in weights], None)
    yield from weights
    yield from averages


def _elementwise_functions(device: torch.device) -> Iterator[Result]:
    values = _tensor(device, 30_011, seed=12)
    for x in (values, values.double()):
        positive = x.abs() + 1e-3
        yield from (x.exp(), positive.log1p(), x.tanh(), x.erf(), functional.softplus(x))
        yield from (torch.atan2(x, positive), positive.pow(6.0), positive.reciprocal())
        yield from (x.sum(), x.mean(), x.cumsum(0) if x.device.type == "cpu" else x.amax())
    yield (values.abs() + 1e-3).log()
    yield values.abs().pow(torch.full_like(values, 0.5))


def _random_numbers(device: torch.device) -> Iterator[Result]:
    torch.manual_seed(SEED)
    yield torch.randn(10_001, device=device)
    yield torch.rand(1_001, device=device)
    yield torch.randperm(1_001, device=device)
    yield functional.dropout(torch.ones(5_003, device=device), 0.3)
    if device.type == "cpu":
        rng = np.random.default_rng(SEED)
        yield from (rng.random(1_001), rng.standard_normal(1_001), rng.permutation(1_001))
        old = np.random.RandomState(SEED)
        yield from (old.uniform(size=1_001), old.standard_normal(1_001))
        python = random.Random(SEED)
        yield np.array([python.gauss(0, 1) for _ in range(1_001)])


def _picture(height: int, width: int) -> NDArray[np.uint8]:
    """Grey, with smooth parts and noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(SEED).integers(0, 40, (height, width))
    return np.asarray((rows * 3 + columns * 2 + noise) % 256, np.uint8)


def _resampling_and_warping(_: torch.device) -> Iterator[Result]:
    picture = _picture(611, 403)
    for size in ((256, 384), (101, 160), (128, 128)):
        yield cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for method in (cv2.INTER_LINEAR, cv2.INTER_CUBIC):
        yield cv2.resize(picture, (500, 777), interpolation=method)
        yield cv2.resize(_numbers(12, 8), (403, 611), interpolation=method)
    turn = cv2.getRotationMatrix2D((201, 305), 7.3, 1.07)
    yield cv2.warpAffine(picture, turn, (403, 611), flags=cv2.INTER_LINEAR)
    yield cv2.warpAffine(np.dstack([picture] * 3), turn, (403, 611))
    yield cv2.GaussianBlur(picture, (5, 5), 0)
    yield cv2.resize(_picture(1024, 800).astype(np.uint16) * 16, (400, 512), None, 0, 0, 3)


def _numpys_functions(_: torch.device) -> Iterator[Result]:
    single = _numbers(30_011, seed=13)
    for x in (single, single.astype(np.float64)):
        positive = np.abs(x) + x.dtype.type(1e-3)
        yield from (np.exp(x), np.log(positive), np.sqrt(positive), np.tanh(x), positive**2.5)
        yield from (np.sum(x), np.mean(x), np.std(x), np.cumsum(x), np.quantile(x, [0.025, 0.5]))
        yield from (np.sort(x), np.argsort(np.round(x, 1)), np.interp(x, [-2, 2], [0, 255]))
    left, right = _numbers(150, 301, seed=14), _numbers(301, 77, seed=15)
    pairs: tuple[tuple[NDArray[Any], NDArray[Any]], ...] = (
        (left, right),
        (left.astype(np.float64), right.astype(np.float64)),
    )
    for a, b in pairs:
        yield from (a @ b, a[0] @ b[:, 0], np.linalg.lstsq(a[:, :9], a[:, 9], rcond=None)[0])


def _c_librarys_functions(_: torch.device) -> Iterator[Result]:
    """What Python's own `math` calls: rates of learning, angles."""
    values = _numbers(2_003, seed=16).astype(np.float64).tolist()
    functions = (math.exp, math.sin, math.cos, math.tanh, math.atan, math.expm1, math.erf)
    for function in functions:
        yield np.array([function(value) for value in values])
    yield np.array([abs(value) ** 2.7 + math.log(abs(value) + 1e-3) for value in values])


def _decoding(_: torch.device) -> Iterator[Result]:
    """JPEG 2000, whose lossy kind computes with fractions; the other codecs with whole numbers."""
    pixels = _picture(611, 403)
    for level in (0, 60):
        content = imagecodecs.jpeg2k_encode(pixels, level=level, reversible=not level)
        for reduce in (0, 1):
            with Image.open(io.BytesIO(content)) as image:
                image.reduce = reduce  # type: ignore[method-assign, assignment]
                yield np.asarray(image)
        yield imagecodecs.jpeg2k_decode(content)
    yield imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(pixels, level=90))


def _png(_: torch.device) -> Iterator[Result]:
    picture = _picture(611, 403)
    for image in (picture, np.dstack([picture] * 3)):
        yield encode_png(image)


def _and_gradients(*tensors: Tensor) -> Iterator[Tensor]:
    for tensor in tensors:
        yield tensor.grad if tensor.is_leaf and tensor.grad is not None else tensor


TORCH: dict[str, Family] = {
    "matrix product": _matrix_product,
    "convolution forward": _convolution_forward,
    "convolution backward": _convolution_backward,
    "normalisation": _normalisation,
    "activation, pooling, loss": _activation,
    "optimiser step": _optimiser_step,
    "elementwise functions": _elementwise_functions,
    "random numbers": _random_numbers,
}
"""What torch computes, on the CPU or a GPU."""

BFLOAT16: dict[str, Family] = {
    f"{name} in bfloat16": _in_bfloat16(TORCH[name])
    for name in ("matrix product", "convolution forward", "convolution backward", "normalisation")
}
"""What differs with the other precision; on a GPU only, where it is of use."""

OTHERS: dict[str, Family] = {
    "resampling and warping": _resampling_and_warping,
    "NumPy's functions": _numpys_functions,
    "the C library's functions": _c_librarys_functions,
    "decoding": _decoding,
    "PNG": _png,
}
"""What other libraries compute, on the CPU."""


def main() -> None:
    """Print the fingerprint as one line of JSON, for the threads that params.yaml names."""
    print(json.dumps(compute_fingerprint(load_params().threads)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
