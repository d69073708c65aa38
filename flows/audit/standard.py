"""Which standard a re-run must meet; chosen before anything runs again.

If this machine computes as the machines that made a version, the bytes must be the same. If not,
training gives other weights, and the models are compared by what they do.
"""

from collections.abc import Mapping, Sequence

from flows.audit.record import Family, Machine, Standard
from flows.snapshots.environment import Environment


def find_standard(
    then: Environment | None, now: Mapping[str, str], stages: Sequence[str]
) -> Standard:
    """Compare the arithmetic of the machines that made a version with this machine's.

    Args:
        then: the environment of the version; None if it was not recorded.
        now: this machine's arithmetic, from `arithmetic.measure` with the snapshot's code.
        stages: of the snapshot.
    """
    machines = [
        Machine(stages=ran, recorded=bool(families), families=_compare_families(families, now))
        for families, ran in _group_by_machine(then, stages)
    ]
    reasons = [
        f"this machine computes differently from {_name_machine(machine, machines)}: "
        f"{_describe_differences(machine)}"
        for machine in machines
        if now and machine.recorded and not all(family.same for family in machine.families)
    ]
    reasons += [
        f"no fingerprint of the arithmetic was recorded of {_name_machine(machine, machines)}"
        for machine in machines
        if not machine.recorded
    ]
    if not now and not reasons:
        reasons = ["the version's own code could not tell how this machine computes"]
    if not reasons:
        return Standard(
            name="bit for bit",
            sentence=f"this machine computes all {len(now)} families of kernels as "
            f"{_name_machine(machines[0], machines[:1])}; so every byte must be the same",
            machines=machines,
        )
    return Standard(
        name="equivalence",
        sentence=f"{'; '.join(reasons)}; so bytes may differ from training on, and the re-made "
        f"model must do the same for the test women",
        machines=machines,
    )


def _group_by_machine(
    then: Environment | None, stages: Sequence[str]
) -> list[tuple[Mapping[str, str], list[str]]]:
    """The arithmetic of each machine, and the stages that it ran; equal machines count once."""
    found: list[tuple[Mapping[str, str], list[str]]] = []
    for stage in stages:
        families = {} if then is None else then.elsewhere.get(stage, then.arithmetic)
        ran = next((names for other, names in found if other == families), None)
        if ran is None:
            found.append((families, [stage]))
        else:
            ran.append(stage)
    return found


def _compare_families(then: Mapping[str, str], now: Mapping[str, str]) -> list[Family]:
    names = [*now, *(name for name in then if name not in now)]
    return [Family(name=name, then=then.get(name), now=now.get(name)) for name in names]


def _name_machine(machine: Machine, machines: Sequence[Machine]) -> str:
    """The machine as half a sentence; its stages name it if there are several machines."""
    if len(machines) == 1:
        return "the one that made the version"
    return f"the one that ran {', '.join(machine.stages)}"


def _describe_differences(machine: Machine) -> str:
    """The families of kernels that differ, as half a sentence."""
    states = {
        family.name: "not there then"
        if family.then is None
        else "not there now"
        if family.now is None
        else ""
        for family in machine.families
        if not family.same
    }
    return ", ".join(f"{name} ({state})" if state else name for name, state in states.items())
