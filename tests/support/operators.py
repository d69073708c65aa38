"""One checksum of the results of each operator of torch that computes elementwise or reduces.

    python -m tests.support.operators                          # on this processor
    qemu-x86_64 -cpu Haswell python -m tests.support.operators # on another

Prints JSON: by type of float, by operator. An operator whose checksum is another under the emulator
hangs on what processors compute in their own ways; `portability.Watch` must know it.
grid_sample is left out: qemu 7.2 crashes in it.
"""

import json
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mammo.base.determinism import pin
from tests.support.portability import Watch

THREADS = 2
SIZES = (1, 3, 8, 17, 64, 1023, 2**16 + 5)
"""With and without a tail after whole vectors of 4, 8 and 16; the last is shared among threads."""

MANY = 2**21
OF_MKL = (
    "sqrt", "rsqrt", "reciprocal", "log", "log2", "log10", "log1p", "logit", "exp", "exp2",
    "expm1", "sin", "cos", "tan", "acos", "asin", "atan", "tanh", "erf", "erfc", "erfinv",
    "sigmoid",
)  # fmt: skip
"""What MKL computes, or may: on so many numbers, since a function may differ in few of them."""

RARE = {"log10", "log", "logit", "_foreach_log", "_foreach_log10", "_foreach_atan"}
"""They differ in few of the numbers of this module: on a machine it may be in none."""

ANY, POSITIVE, UNIT, ABOVE_ONE = "any", "positive", "unit", "above one"


def elementwise() -> dict[str, tuple[str, Callable[..., Any]]]:
    """What operators of one tensor take, and how they are called; named as ATen names them."""
    names = {
        ANY: "abs neg sin cos tan atan sinh cosh asinh erf erfc exp exp2 expm1 tanh sigmoid "
        "reciprocal square sinc sign floor round frac i0 softplus silu mish gelu elu selu celu "
        "leaky_relu hardswish hardsigmoid hardtanh relu relu6 logsigmoid softsign tanhshrink "
        "deg2rad special_entr special_log_ndtr special_ndtr special_erfcx special_i0e special_i1 "
        "special_bessel_j0 nan_to_num",
        POSITIVE: "sqrt rsqrt log log2 log10 log1p lgamma digamma special_i1e logit",
        UNIT: "acos asin atanh erfinv special_ndtri",
        ABOVE_ONE: "acosh mvlgamma",
    }
    found: dict[str, tuple[str, Callable[..., Any]]] = {}
    for domain, words in names.items():
        for name in words.split():
            function = getattr(torch, name, None) or getattr(torch.special, name[8:], None)
            function = function or getattr(functional, name)
            found[name] = domain, partial(function, p=2) if name == "mvlgamma" else function
    for power in (-3, -2, -1, -0.5, 0.5, 0.3, 1.5, 2, 2.5, 3, 4):
        found[f"pow({power:g})"] = POSITIVE, lambda x, power=power: x.pow(power)
        found[f"_foreach_pow({power:g})"] = POSITIVE, lambda x, p=power: torch._foreach_pow([x], p)
    lists = (
        "abs acos asin atan cos cosh erf erfc exp expm1 lgamma log log10 log1p log2 neg reciprocal "
        "rsqrt sigmoid sin sinh sqrt tan tanh norm max"
    )
    for name in lists.split():
        domain = UNIT if name in ("acos", "asin") else POSITIVE
        function = getattr(torch, f"_foreach_{name}")
        found[f"_foreach_{name}"] = domain, lambda x, f=function: f([x])
    found["gelu(tanh)"] = ANY, partial(functional.gelu, approximate="tanh")
    return found


def of_two() -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Of two tensors of the same shape, the second positive."""
    lerped = torch.tensor(0.3)
    return {
        "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div,
        "atan2": torch.atan2, "hypot": torch.hypot, "fmod": torch.fmod,
        "remainder": torch.remainder, "floor_divide": torch.floor_divide,
        "logaddexp": torch.logaddexp, "logaddexp2": torch.logaddexp2, "xlogy": torch.xlogy,
        "xlog1py": torch.special.xlog1py, "maximum": torch.maximum, "minimum": torch.minimum,
        "pow(tensor)": lambda x, y: y.pow(x), "pow(scalar base)": lambda x, y: torch.pow(0.7, x),
        "_foreach_pow(tensor)": lambda x, y: torch._foreach_pow([y], [x]),
        "addcdiv": lambda x, y: x.addcdiv(x, y, value=0.1),
        "addcmul": lambda x, y: x.addcmul(x, y, value=0.1),
        "lerp": lambda x, y: x.lerp(y, lerped.to(x.dtype)),
        "_foreach_div": lambda x, y: torch._foreach_div([x], [y]),
        "_foreach_mul": lambda x, y: torch._foreach_mul([x], [y]),
        "_foreach_addcdiv": lambda x, y: torch._foreach_addcdiv([x], [x], [y], 0.1),
        "_foreach_addcmul": lambda x, y: torch._foreach_addcmul([x], [x], [y], 0.1),
        "_foreach_lerp": lambda x, y: torch._foreach_lerp([x], [y], 0.3),
        "polar": lambda x, y: torch.view_as_real(torch.polar(y, x)),
        "abs(complex)": lambda x, y: torch.complex(x, y).abs(),
        "angle(complex)": lambda x, y: torch.complex(x, y).angle(),
        "mse_loss": functional.mse_loss, "l1_loss": functional.l1_loss,
        "smooth_l1_loss": functional.smooth_l1_loss, "huber_loss": functional.huber_loss,
        "binary_cross_entropy": lambda x, y: functional.binary_cross_entropy(
            x.abs().frac(), y.frac()
        ),
        "binary_cross_entropy_with_logits": lambda x, y: (
            functional.binary_cross_entropy_with_logits(x, y.frac())
        ),
        "kl_div": lambda x, y: functional.kl_div(x, y, reduction="sum"),
        "dist": torch.dist,
    }  # fmt: skip


def of_rows() -> dict[str, Callable[[Tensor], Any]]:
    """Of a matrix: reductions, norms, normalisations and what hangs on distances."""
    names = "sum mean prod amax std var logsumexp cumsum cumprod logcumsumexp softmax log_softmax"
    found: dict[str, Callable[[Tensor], Any]] = {
        name: partial(getattr(torch, name), dim=1) for name in names.split()
    }
    found |= {
        "sum(all)": torch.sum,
        "std(all)": torch.std,
        "var(all)": torch.var,
        "std_mean": lambda x: torch.std_mean(x, 1),
        "var_mean": lambda x: torch.var_mean(x, 1),
        "norm": lambda x: torch.norm(x),
        "frobenius_norm": lambda x: torch.linalg.matrix_norm(x),
        "normalize": lambda x: functional.normalize(x, dim=1),
        "renorm": lambda x: x.renorm(2, 0, 1.0),
        "cdist": lambda x: torch.cdist(x[:40], x[40:90]),
        "cdist(exact)": lambda x: torch.cdist(
            x[:40], x[40:90], compute_mode="donot_use_mm_for_euclid_dist"
        ),
        "cdist(1)": lambda x: torch.cdist(x[:40], x[40:90], p=1.0),
        "cdist(3)": lambda x: torch.cdist(x[:40], x[40:90], p=3.0),
        "pdist": lambda x: functional.pdist(x[:60]),
        "pairwise_distance": lambda x: functional.pairwise_distance(x[:99], x[1:100]),
        "cosine_similarity": lambda x: functional.cosine_similarity(x[:99], x[1:100]),
        "layer_norm": lambda x: functional.layer_norm(x, x.shape[1:]),
        "rms_norm": lambda x: functional.rms_norm(x, x.shape[1:]),
        "group_norm": lambda x: functional.group_norm(_images(x), 4),
        "batch_norm": lambda x: functional.batch_norm(_images(x), None, None, training=True),
        "batch_norm(channels last)": lambda x: functional.batch_norm(
            _images(x).to(memory_format=torch.channels_last), None, None, training=True
        ),
        "batch_norm(eval)": lambda x: functional.batch_norm(
            _images(x), x[0, :16].clone(), x[1, :16].abs()
        ),
        "instance_norm": lambda x: functional.instance_norm(_images(x)),
        "local_response_norm": lambda x: functional.local_response_norm(_images(x), 3),
        "lp_pool2d": lambda x: functional.lp_pool2d(_images(x), 2.0, 2),
        "avg_pool2d": lambda x: functional.avg_pool2d(_images(x), 2),
        "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(_images(x), 3),
        "interpolate(bilinear)": lambda x: functional.interpolate(
            _images(x), scale_factor=1.7, mode="bilinear"
        ),
        "interpolate(bicubic)": lambda x: functional.interpolate(
            _images(x), scale_factor=0.7, mode="bicubic", antialias=True
        ),
        "cross_entropy": lambda x: functional.cross_entropy(x, torch.arange(len(x)) % x.shape[1]),
        "matmul": lambda x: x @ x.T,
        "conv2d": lambda x: functional.conv2d(_images(x), x.flatten()[:1152].view(8, 16, 3, 3)),
        "scaled_dot_product_attention": lambda x: functional.scaled_dot_product_attention(
            *x.flatten()[: 3 * 4 * 50 * 16].view(3, 1, 4, 50, 16)
        ),
        "multi_head_attention": _attention,
    }
    for p in (0.5, 1.0, 2.0, 3.0):
        found[f"linalg_vector_norm({p:g})"] = partial(torch.linalg.vector_norm, ord=p, dim=1)
        found[f"linalg_vector_norm({p:g}, all)"] = partial(torch.linalg.vector_norm, ord=p)
        found[f"_foreach_norm({p:g})"] = partial(_norms, p=p)
    for name in ("_fused_adam_", "_fused_adamw_", "_fused_adagrad_", "_fused_sgd_"):
        found[name] = partial(_step, name=name)
    return found


def _norms(x: Tensor, p: float) -> Any:
    return torch._foreach_norm([x, x[1]], p)


def _attention(x: Tensor) -> Tensor:
    layer = torch.nn.MultiheadAttention(16, 4, batch_first=True, dtype=x.dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(x.flatten()[: parameter.numel()].view_as(parameter) / 9)
    rows = x[:50, :16][None]
    seen: Tensor = layer(rows, rows, rows, need_weights=False)[0]
    return seen


def _images(x: Tensor) -> Tensor:
    return x.flatten()[: 2 * 16 * 15 * 13].view(2, 16, 15, 13)


def _step(x: Tensor, name: str) -> list[Tensor]:
    """What a fused step of an optimiser makes of its tensors.

    One that is not fused is made of operators that are in this list themselves.
    """
    count = {"_fused_sgd_": 1, "_fused_adagrad_": 1}.get(name, 2)
    changed = [(x * scale).abs().contiguous() for scale in (0.3, 0.02, 0.01)[: 1 + count]]
    lists = [[changed[0]], [x.contiguous()], *([state] for state in changed[1:])]
    how: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.01, "maximize": False}
    if name == "_fused_sgd_":
        how |= {"momentum": 0.9, "dampening": 0.0, "nesterov": False, "is_first_step": False}
    else:
        how["eps"] = 1e-8
        steps = [torch.tensor(3.0)]
        if name == "_fused_adagrad_":
            getattr(torch, name)(*lists, steps, lr_decay=0.0, **how)
            return changed
        lists += [[]]
        how |= {"beta1": 0.9, "beta2": 0.999, "amsgrad": False}
        getattr(torch, name)(*lists, steps, **how)
        return changed
    getattr(torch, name)(*lists, **how)
    return changed


def inputs(size: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Numbers of every domain, made by exact arithmetic only."""
    rng = np.random.default_rng(size)
    even = torch.from_numpy(rng.random(size)).to(dtype)
    powers = torch.from_numpy(2.0 ** rng.integers(-6, 5, size)).to(dtype)
    signs = torch.from_numpy(rng.integers(0, 2, size) * 2.0 - 1).to(dtype)
    return {
        ANY: (even + 0.01) * powers * signs,
        POSITIVE: (even + 0.01) * powers,
        UNIT: (even * 2 - 1) * 0.999,
        ABOVE_ONE: 1 + (even + 0.01) * powers,
    }


def layouts(x: Tensor) -> list[Tensor]:
    """The same numbers one after the other, and a few also with gaps and as a matrix's columns."""
    if len(x) > 2000:
        return [x]
    gaps = torch.zeros(2 * len(x), dtype=x.dtype)
    gaps[::2] = x
    found = [x, gaps[::2]]
    if len(x) > 64:
        found.append(x[: len(x) // 8 * 8].view(-1, 8).t())
    return found


def digest(results: list[Any]) -> int:
    """A checksum of all bits of all results; a NaN is a NaN."""
    total = 0
    for result in results:
        for tensor in result if isinstance(result, tuple | list) else [result]:
            missing = tensor.isnan()
            plain = torch.where(missing, torch.nan, tensor) if missing.any() else tensor
            total = zlib.crc32(plain.detach().contiguous().numpy().data, total)
    return total


Call = Callable[[], list[Any]]


def _results(function: Callable[..., Any], inputs: Sequence[tuple[Tensor, ...]]) -> list[Any]:
    return [function(*tensors) for tensors in inputs]


def calls(dtype: torch.dtype) -> dict[str, Call]:
    """What computes the results of each operator."""
    numbers = [inputs(size, dtype) for size in SIZES]
    many = inputs(MANY, dtype)
    matrix = numbers[-1][ANY][: 2**16].view(128, 512)
    found: dict[str, Call] = {}
    for name, (domain, function) in elementwise().items():
        parts = [x for part in numbers for x in layouts(part[domain])]
        parts += [many[domain]] if name in OF_MKL else []
        found[name] = partial(_results, function, [(x,) for x in parts])
    for name, pair in of_two().items():
        pairs = [
            both
            for part in numbers
            for both in zip(layouts(part[ANY]), layouts(part[POSITIVE]), strict=True)
        ]
        found[name] = partial(_results, pair, pairs)
    for name, rows in of_rows().items():
        found[name] = partial(_results, rows, [(matrix[:, :width],) for width in (512, 333)])
    return found


def main() -> None:
    """Print the checksums, and whether the guard calls the operator portable."""
    warnings.simplefilter("ignore")
    pin(0, THREADS)
    found: dict[str, dict[str, Any]] = {}
    for dtype in (torch.float32, torch.float64):
        kind = found[str(dtype).removeprefix("torch.")] = {}
        for name, call in calls(dtype).items():
            with Watch() as watch:
                results = call()
            kind[name] = {"checksum": digest(results), "portable": not watch.found}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
