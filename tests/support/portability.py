"""Catches, by name and line, what each processor computes in a way of its own."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# All of them are MKL's, which starts some functions from RSQRTPS or RCPPS: approximations that
# Intel, AMD and an emulator each compute in a way of their own, seen afterwards in the last bit.
_BOTH = {"sqrt", "pow(0.5)", "acos", "asin", "atan", "log10", "_euclidean_dist"}
NOT_PORTABLE = {
    torch.float32: _BOTH,
    torch.float64: _BOTH | {"tan", "log", "logit"},
}

TORCH = Path(torch.__file__).parent


class Watch(TorchDispatchMode):
    """While it is on, collects each call of an operator of NOT_PORTABLE on tensors of the CPU.

    It sees what backward passes call as well: on a CPU they run in the thread that asks for them.

    Attributes:
        found: such as "aten::sqrt.out, called at ultralytics/utils/tal.py:212", each once.
        seen: the names of all operators.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.seen: set[str] = set()

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.seen.add(func.overloadpacket.__name__)
        name = name_of(func, args)
        if any(name in NOT_PORTABLE.get(dtype, ()) for dtype in types_on_cpu((args, kwargs))):
            told = f"{func.name()}, {where()}"
            if told not in self.found:
                self.found.append(told)
        return func(*args, **kwargs)


def name_of(func: Any, args: Any) -> str:
    """An operator's name as NOT_PORTABLE has it.

    In place or not, of one tensor or of a list of them is all the same; a power has its exponent.
    """
    name: str = func.overloadpacket.__name__.removeprefix("_foreach_").rstrip("_")
    exponents = args[1] if name == "pow" and isinstance(args[1], list | tuple) else args[1:2]
    if name == "pow" and any(exponent == 0.5 for exponent in exponents if is_number(exponent)):
        return "pow(0.5)"
    return name


def is_number(value: Any) -> bool:
    """Whether it is a number of Python's."""
    return isinstance(value, float | int)


def types_on_cpu(values: Any) -> set[torch.dtype]:
    """The types of the tensors on the CPU among the arguments."""
    if isinstance(values, Tensor):
        return {values.dtype} if values.device.type == "cpu" else set()
    if isinstance(values, dict):
        values = tuple(values.values())
    if not isinstance(values, list | tuple):
        return set()
    return set[torch.dtype]().union(*(types_on_cpu(value) for value in values))


def where() -> str:
    """The innermost line of Python outside torch, and the node, if it is a backward pass."""
    frame = sys._getframe(2)
    while frame.f_back is not None and _of_torch(frame.f_code.co_filename):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    line = f"called at {_short(path)}:{frame.f_lineno}"
    node = torch._C._current_autograd_node()
    return line if node is None else f"{line}, in the backward pass of {node.name()}"


def _of_torch(filename: str) -> bool:
    return Path(filename).is_relative_to(TORCH)


def _short(path: Path) -> Path:
    """A path from the folder on that Python looked it up in."""
    folders: Iterable[str] = sorted(filter(None, sys.path), key=len, reverse=True)
    return next((path.relative_to(f) for f in folders if path.is_relative_to(f)), path)
