"""Deals out who has what: the women, their breasts, lesions and machines.

Everything that a header or a table says is dealt so that it cannot give the cancer away: machine,
density, age and implant have the same distribution in women with and without cancer, by
construction and not only on average. What may go with cancer is what a radiologist wrote down after
looking: BIRADS, biopsy, invasive and difficult_negative_case, as in RSNA.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import Generator

from mammo.datasets.phantom.anatomy import (
    Position,
    Shape,
    depth_under_skin,
    implant_oval,
    in_pectoral,
    outline_breast,
    project,
)
from mammo.datasets.phantom.texture import generator
from mammo.datasets.phantom.women import MACHINES, Breast, Island, Lesion, MammographyUnit, Woman

T = TypeVar("T")

CANCER_SHARE = 2
"""One woman in so many has cancer, in one breast."""

_MACHINE_SHARES = (0.35, 0.22, 0.24, 0.10, 0.09)
_DENSITY_SHARES = (("A", 0.12), ("B", 0.38), ("C", 0.38), ("D", 0.12))


def plan_women(count: int, seed: int) -> tuple[Woman, ...]:
    """Deal out `count` women, in the order of their patient ids.

    From six women on every machine, transfer syntax, kind of cancer, an implant and a difficult
    negative case are present.
    """
    rng = generator(seed, 1)
    machines = sorted(
        deal(rng, list(zip(MACHINES, _MACHINE_SHARES, strict=True)), count),
        key=lambda machine: machine.machine_id,
    )
    # Every second woman of each machine, so that no machine has more cancer than another.
    cancers = [index % CANCER_SHARE == 1 for index in range(count)]
    facts = {status: _deal_facts(rng, cancers.count(status), status) for status in (False, True)}
    patient_ids = _distinct_numbers(rng, count, 10_000, 65_000)
    image_ids = _distinct_numbers(rng, 4 * count, 100_000_000, 2_000_000_000)
    difficult = deal(rng, [(True, 0.16), (False, 0.84)], 2 * count)
    women = [
        _woman(
            generator(seed, 2, index),
            patient_ids[index],
            machines[index],
            facts[cancers[index]].pop(),
            difficult[2 * index : 2 * index + 2],
            image_ids[4 * index : 4 * index + 4],
        )
        for index in range(count)
    ]
    return tuple(sorted(women, key=lambda woman: int(woman.patient_id)))


def deal(rng: Generator, shares: Sequence[tuple[T, float]], count: int) -> list[T]:
    """`count` items in proportion to their shares (largest remainders), shuffled."""
    exact = [share * count for _, share in shares]
    counts = [int(amount) for amount in exact]
    by_rest = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for index in by_rest[: count - sum(counts)]:
        counts[index] += 1
    cards = [item for (item, _), times in zip(shares, counts, strict=True) for _ in range(times)]
    return [cards[index] for index in rng.permutation(count)]


@dataclass(frozen=True)
class _Facts:
    """What is dealt to a woman; kind and side of her cancer are empty if she has none."""

    age: int
    density: str
    implant: bool
    cancer_kind: str
    cancer_side: str


def _deal_facts(rng: Generator, count: int, cancer: bool) -> list[_Facts]:
    """The facts of all women with cancer, or of all without."""
    ages = []
    for index in range(count):
        q = 2 * (index + 0.5) / count - 1
        ages.append(int(59 + 20 * q * (0.6 + 0.4 * q * q)))
    ages = [ages[index] for index in rng.permutation(count)]
    densities = deal(rng, _DENSITY_SHARES, count)
    with_implant = int(0.07 * count + 0.5)
    if not cancer and count:
        with_implant = max(with_implant, 1)
    implants = [index < with_implant for index in rng.permutation(count)]
    if not cancer:
        return [_Facts(*fact, "", "") for fact in zip(ages, densities, implants, strict=True)]
    kinds = deal(rng, [("mass", 0.55), ("calcifications", 0.45)], count)
    sides = deal(rng, [("L", 0.5), ("R", 0.5)], count)
    return [_Facts(*fact) for fact in zip(ages, densities, implants, kinds, sides, strict=True)]


def _distinct_numbers(rng: Generator, count: int, low: int, high: int) -> list[str]:
    numbers: dict[int, None] = {}
    while len(numbers) < count:
        numbers[int(rng.integers(low, high))] = None
    return [str(number) for number in numbers]


def _woman(
    rng: Generator,
    patient_id: str,
    machine: MammographyUnit,
    facts: _Facts,
    difficult: list[bool],
    image_ids: list[str],
) -> Woman:
    shape = Shape(
        depth=_between(rng, 78, 124),
        half_width=_between(rng, 74, 106),
        skew=_between(rng, -1, 1),
        sag=_between(rng, 0, 1),
        pectoral_top=_between(rng, 42, 62),
        pectoral_foot=_between(rng, 95, 150),
    )
    islands = _islands(rng, shape)
    breasts = []
    for side, laterality in enumerate("LR"):
        own_shape = _similar_shape(rng, shape)
        own_islands = _similar_islands(rng, islands)
        cancer_kind = facts.cancer_kind if laterality == facts.cancer_side else ""
        breasts.append(
            _breast(
                rng,
                laterality,
                own_shape,
                own_islands,
                facts.implant,
                cancer_kind,
                difficult[side] and not cancer_kind,
                (image_ids[2 * side], image_ids[2 * side + 1]),
            )
        )
    return Woman(
        patient_id,
        machine,
        facts.age,
        facts.density,
        facts.implant,
        int(rng.integers(2**31)),
        (breasts[0], breasts[1]),
    )


def _breast(
    rng: Generator,
    laterality: str,
    shape: Shape,
    islands: tuple[Island, ...],
    implant: bool,
    cancer_kind: str,
    difficult: bool,
    image_ids: tuple[str, str],
) -> Breast:
    # The benign findings come first and know nothing of the cancer.
    lesions = _benign_lesions(rng, shape, implant)
    seen = bool(lesions)
    has_node = rng.random() < 0.6
    node_position = Position(0.0, _between(rng, -1, 1), _between(rng, -1, 1))
    if has_node:
        lesions.append(_lesion(rng, "lymph_node", node_position, _between(rng, 3.5, 7.0)))
    reads = rng.random(4)
    lookalike = "lookalike_mass" if reads[0] < 0.5 else "lookalike_calcifications"
    suspicious = cancer_kind or (lookalike if difficult else "")
    if suspicious:
        is_mass = suspicious.endswith("mass")
        radius = _between(rng, 3.8, 8.0) if is_mass else _between(rng, 4.5, 8.0)
        lesions.append(_lesion(rng, suspicious, _find_position(rng, shape, implant), radius))
    cancer = bool(cancer_kind)
    birads = ("0" if suspicious else "2" if seen else "1") if reads[1] < 0.6 else ""
    return Breast(
        laterality,
        shape,
        islands,
        tuple(lesions),
        cancer=cancer,
        biopsy=cancer or (difficult and bool(reads[2] < 0.45)),
        invasive=cancer and bool(reads[3] < (0.85 if cancer_kind == "mass" else 0.4)),
        birads=birads,
        difficult=difficult,
        image_ids=image_ids,
    )


def _benign_lesions(rng: Generator, shape: Shape, implant: bool) -> list[Lesion]:
    lesions = []
    for kind, chance, low, high in (
        ("benign_mass", 0.40, 3.0, 8.5),
        ("benign_mass", 0.15, 2.5, 5.5),
        ("benign_calcification", 0.30, 1.0, 2.6),
        ("benign_calcification", 0.15, 0.8, 1.6),
        ("scattered_calcifications", 0.30, 20.0, 40.0),
        ("vascular_calcification", 0.18, 12.0, 22.0),
    ):
        wanted = rng.random() < chance
        lesion = _lesion(rng, kind, _find_position(rng, shape, implant), _between(rng, low, high))
        if wanted:
            lesions.append(lesion)
    return lesions


def _lesion(rng: Generator, kind: str, position: Position, radius: float) -> Lesion:
    # Contrast varies widely: a few lesions jump to the eye, others have to be looked for.
    return Lesion(kind, position, radius, _between(rng, 0.7, 1.45), int(rng.integers(2**31)))


def _find_position(rng: Generator, shape: Shape, implant: bool) -> Position:
    """A random position well inside the breast in both views, off the muscle and the implant."""
    views = [outline_breast(shape, view) for view in ("CC", "MLO")]
    for _ in range(200):
        candidate = Position(
            _between(rng, 14.0, shape.depth - 14.0), _between(rng, -1, 1), _between(rng, -1, 1)
        )
        spots = [(seen, *project(candidate, seen)) for seen in views]
        if all(
            x > 10
            and depth_under_skin(seen.outline, x, y) > 13
            and not in_pectoral(seen, x - 8, y)
            and not (implant and implant_oval(shape, seen).contains(x, y, margin=6.0))
            for seen, x, y in spots
        ):
            return candidate
    return Position(18.0, 0.0, 0.0)  # right behind the nipple there is always room


def _islands(rng: Generator, shape: Shape) -> tuple[Island, ...]:
    """Glandular tissue lies behind the nipple, more of it lateral and superior."""
    islands = []
    for _ in range(int(rng.integers(16, 26))):
        depth = 10 + (shape.depth - 30) * float(rng.random() + rng.random()) / 2
        fan = min(depth / 45, 1.0)
        position = Position(
            depth,
            fan * (0.18 + 0.5 * _between(rng, -1, 1)),
            fan * (0.12 + 0.5 * _between(rng, -1, 1)),
        )
        islands.append(Island(position, _between(rng, 9, 26), _between(rng, 0.4, 1.0)))
    return tuple(islands)


def _similar_shape(rng: Generator, shape: Shape) -> Shape:
    return Shape(
        depth=shape.depth * _between(rng, 0.97, 1.03),
        half_width=shape.half_width * _between(rng, 0.97, 1.03),
        skew=shape.skew + _between(rng, -0.2, 0.2),
        sag=shape.sag + _between(rng, -0.08, 0.08),
        pectoral_top=shape.pectoral_top * _between(rng, 0.92, 1.08),
        pectoral_foot=shape.pectoral_foot * _between(rng, 0.92, 1.08),
    )


def _similar_islands(rng: Generator, islands: tuple[Island, ...]) -> tuple[Island, ...]:
    moved = []
    for island in islands:
        at = island.position
        position = Position(
            at.depth + _between(rng, -4, 4),
            at.lateral + _between(rng, -0.08, 0.08),
            at.superior + _between(rng, -0.08, 0.08),
        )
        moved.append(
            Island(
                position,
                island.radius * _between(rng, 0.9, 1.1),
                island.weight * _between(rng, 0.8, 1.2),
            )
        )
    return tuple(moved)


def _between(rng: Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())
