"""The environment of a model: Python, packages, processor, threads, GPU; and how two differ.

The run of a registered version holds it as `environment.json`, and an audit compares it with its
own.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict

from mammo.base.processor import count_cores, read_cpuinfo, read_processor_name

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_SPINCOUNT")
# Instruction sets that numerical libraries choose their kernels by.
CPU_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd")
LONGEST_LICENCE = 64  # characters of a name; what is longer is the licence itself
_LICENCE_FIELDS = ("License-Expression", "Classifier", "License")
# These run the pipeline and change no byte of an out.
_ORCHESTRATION = {"prefect", "fastapi", "dvc", "mlflow", "typer", "rich"}


class Environment(BaseModel):
    """A machine and its software, as far as they can change bits; no host or user name."""

    model_config = ConfigDict(frozen=True)

    python: str
    system: str
    processor: str
    cores: int  # that this process may use
    cpu_flags: tuple[str, ...]
    threads: Mapping[str, str]  # of THREADS, those that are set
    gpus: tuple[str, ...]  # name and driver
    cuda: Mapping[str, str] = {}  # versions of CUDA and cuDNN, if there is a GPU
    packages: Mapping[str, str]  # canonical names and versions
    licences: Mapping[str, str] = {}  # of the packages that name one; nothing if not recorded
    arithmetic: Mapping[str, str] = {}  # `arithmetic.measure`; nothing if it was not recorded
    # Of the machines that ran a stage for this one, by the stage's name.
    elsewhere: Mapping[str, Mapping[str, str]] = {}


class EnvironmentDifference(BaseModel):
    """One thing that differs between two environments."""

    model_config = ConfigDict(frozen=True)

    what: str
    then: str
    now: str
    moves_bits: bool  # whether it can change the bits of an out


def describe_environment() -> Environment:
    """The environment of this process."""
    gpus = _list_gpus()
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        processor=read_processor_name(),
        cores=count_cores(),
        cpu_flags=tuple(_read_cpu_flags()),
        threads={name: os.environ[name] for name in THREADS if name in os.environ},
        gpus=tuple(gpus),
        cuda=_find_cuda() if gpus else {},
        packages=dict(sorted((n, v) for n, v in _list_installed())),
        licences=dict(sorted(_list_licences())),
    )


def compare(
    then: Environment | None, now: Environment, lock: Mapping[str, str]
) -> list[EnvironmentDifference]:
    """What differs between then and now, and between now and the packages of a lock file.

    Args:
        then: None if it was not recorded; then the lock file gives the packages.
        now: this machine's.
        lock: as `read_locked_packages`.
    """
    found = []
    if then is not None:
        # Threads are pinned by params.threads, and a stage may use fewer cores than it has threads:
        # neither moves bits. An instruction set does where the pinned one is missing.
        for what, one, other, moves in (
            ("Python", then.python, now.python, True),
            ("system", then.system, now.system, True),
            ("processor", then.processor, now.processor, False),
            ("CPU flags", " ".join(then.cpu_flags), " ".join(now.cpu_flags), True),
            ("cores", str(then.cores), str(now.cores), False),
            ("GPU", ", ".join(then.gpus), ", ".join(now.gpus), True),
            *(
                (name, then.cuda.get(name, ""), now.cuda.get(name, ""), True)
                for name in sorted({*then.cuda, *now.cuda})
            ),
            *((n, then.threads.get(n, ""), now.threads.get(n, ""), False) for n in THREADS),
        ):
            if one != other:
                found.append(
                    EnvironmentDifference(
                        what=what, then=one or "none", now=other or "none", moves_bits=moves
                    )
                )
    ours = _find_packages_moving_bits()
    wanted = {**lock, **(then.packages if then is not None else {})}
    for name in sorted(wanted):
        installed = now.packages.get(name)
        if installed is None and name not in (then.packages if then is not None else {}):
            continue  # the lock also names what other platforms need
        if installed != wanted[name]:
            found.append(
                EnvironmentDifference(
                    what=f"package {name}",
                    then=wanted[name],
                    now=installed or "not installed",
                    moves_bits=name in ours,
                )
            )
    return found


def read_locked_packages(text: str) -> dict[str, str]:
    """Packages and versions that a requirements.lock names."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def _list_installed() -> Iterator[tuple[str, str]]:
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if name != "mammoflow":  # its version is the commit
            yield name, distribution.version


def _list_licences() -> Iterator[tuple[str, str]]:
    """What each installed package says of its licence, in few words."""
    for distribution in metadata.distributions():
        said = distribution.metadata
        licence = name_licence({name: said.get_all(name) or [] for name in _LICENCE_FIELDS})
        if licence is not None:
            yield canonicalize_name(said["Name"]), licence


def name_licence(said: Mapping[str, Sequence[str]]) -> str | None:
    """A package's licence as its metadata name it; None if they do not.

    An expression of PEP 639 counts before classifiers, and those before the old free field, which
    may hold the whole text of a licence: of that only a short first line is taken.

    Args:
        said: the values of each of `_LICENCE_FIELDS`.
    """
    expressions, classifiers, texts = (said.get(name, []) for name in _LICENCE_FIELDS)
    if expressions:
        return expressions[0]
    parts = [x.split(" :: ") for x in classifiers]
    named = sorted({x[-1] for x in parts if x[0] == "License" and len(x) > 2})
    if named:
        return ", ".join(named)
    first = next(iter("".join(texts).strip().splitlines()), "").strip()
    return first if 0 < len(first) <= LONGEST_LICENCE and first != "UNKNOWN" else None


def _find_packages_moving_bits() -> set[str]:
    """Packages that a stage can reach: what we require for it, and what that requires."""
    todo = [
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, metadata.requires("mammoflow") or [])
        if requirement.name not in _ORCHESTRATION and requirement.marker is None
    ]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform
        todo += [
            canonicalize_name(requirement.name)
            for requirement in map(Requirement, needed)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    return found


def _read_cpu_flags() -> list[str]:
    """Those of CPU_FLAGS that this processor has: x86 calls them flags, ARM Features."""
    found = read_cpuinfo("flags") or read_cpuinfo("Features") or ""
    return sorted(set(CPU_FLAGS) & set(found.split()))


def _find_cuda() -> dict[str, str]:
    from mammo.learning.device import find_cuda_versions  # imports torch (seconds)

    found = find_cuda_versions()
    return {"CUDA": found["cuda"], "cuDNN": found["cudnn"]}


def _list_gpus() -> list[str]:
    """Name and driver of each GPU that NVIDIA's own tool sees; none without the tool."""
    if shutil.which("nvidia-smi") is None:
        return []
    result = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    return result.stdout.strip().splitlines() if result.returncode == 0 else []
