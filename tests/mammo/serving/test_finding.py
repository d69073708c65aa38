"""Images become breasts and exams by their headers, and no id leaves unasked."""

import json
from dataclasses import replace

import jsonschema
import pytest

from mammo.imaging.geometry import Box
from mammo.serving.finding import (
    NOTICE,
    ImageFinding,
    Model,
    OperatingPoint,
    Peak,
    Region,
    group_exams,
    read_schema,
    to_document,
)
from mammo.serving.identity import Identity

MODEL = Model("toy", 3, "d1ge57", "c0mm17", "c0de")
POINT = OperatingPoint(0.5, 2.0)
IDS = ("1.2.3.4", "9.8.7.6", "5.5.5", "4711-0815")


def image(number: int, side: str | None, probability: float, **ids: str | None) -> ImageFinding:
    known: dict[str, str | None] = dict(
        zip(("instance", "series", "study", "patient"), IDS, strict=True)
    )
    known |= {"instance": f"1.2.3.4.{number}", **ids}
    return ImageFinding(
        number=number,
        source=f"Doe_Jane/{number}.dcm",
        identity=Identity(sop_class="1.2.840.10008.5.1.4.1.1.1.2", **known),
        laterality=side,
        view="CC",
        rows=400,
        columns=300,
        probability=probability,
        box=Box(0, 0, 30, 40),
        found_by="detector",
        peak=Peak(10.5, 11.0, 1.0),
        region=Region(0.5, ((1, 2), (5, 2), (3, 9))),
        heatmap=b"PNG",
    )


def test_views_make_breasts_and_breasts_exams() -> None:
    images = [
        image(1, "L", 0.2),
        image(2, "R", 0.4),
        image(3, "L", 0.6),
        image(4, "L", 0.1, study="other"),
    ]
    first, second = group_exams(reversed(images), MODEL, POINT, "max")
    assert [breast.laterality for breast in first.breasts] == ["R", "L"]
    assert [breast.probability for breast in first.breasts] == [0.4, 0.6]
    assert [breast.decision for breast in first.breasts] == ["negative", "positive"]
    assert (first.probability, first.decision) == (0.6, "positive")
    assert [one.number for one in first.images] == [2, 1, 3]
    assert (second.probability, second.decision) == (0.1, "negative")
    assert first.key != second.key


def test_a_breast_is_aggregated_as_the_model_was_evaluated() -> None:
    (exam,) = group_exams([image(1, "L", 0.2), image(2, "L", 0.6)], MODEL, POINT, "mean")
    assert exam.breasts[0].probability == pytest.approx(0.4)
    assert exam.decision == "negative"


def test_two_patients_of_one_study_are_two_exams() -> None:
    images = [image(1, "L", 0.2), image(2, "L", 0.2, patient="another")]
    assert len(group_exams(images, MODEL, None, "max")) == 2


def test_images_that_say_nothing_are_not_put_together() -> None:
    nobody = {"study": None, "patient": None}
    images = [image(1, "L", 0.2, **nobody), image(2, "L", 0.2, **nobody)]
    assert len(group_exams(images, MODEL, None, "max")) == 2
    (exam,) = group_exams([image(1, None, 0.2), image(2, None, 0.3)], MODEL, None, "max")
    assert [len(breast.images) for breast in exam.breasts] == [1, 1]


def test_the_threshold_itself_is_positive_and_without_one_nothing_is_decided() -> None:
    (exam,) = group_exams([image(1, "L", 0.5)], MODEL, POINT, "max")
    assert exam.decision == "positive"
    (exam,) = group_exams([image(1, "L", 0.5)], MODEL, None, "max")
    assert (exam.decision, exam.breasts[0].decision) == (None, None)


@pytest.mark.parametrize("identified", [False, True])
@pytest.mark.parametrize("point", [None, POINT])
def test_the_json_is_as_the_schema_says(identified: bool, point: OperatingPoint | None) -> None:
    schema = read_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    images = [image(1, "L", 0.2), replace(image(2, None, 0.3), peak=None, region=None, view=None)]
    for exam in group_exams(images, MODEL, point, "max"):
        document = to_document(exam, identified, {1: "a.png"})
        jsonschema.Draft202012Validator(schema).validate(document)
        assert document["notice"] == NOTICE


def test_ids_and_paths_are_in_the_json_only_if_asked_for() -> None:
    (exam,) = group_exams([image(1, "L", 0.2)], MODEL, POINT, "max")
    text = json.dumps(to_document(exam))
    assert not any(secret in text for secret in (*IDS, "Doe"))
    named = json.dumps(to_document(exam, identified=True))
    assert all(secret in named for secret in (*IDS, "Doe_Jane/1.dcm"))
    assert not any(secret in repr(exam) for secret in ("4711-0815", "Doe"))


def test_no_hash_is_of_a_patients_id_alone() -> None:
    """Such ids are short numbers: whoever had the hash could try all of them."""
    here, there = image(1, "L", 0.2), image(1, "L", 0.2, study="other")
    assert here.identity.patient == there.identity.patient
    assert here.exam != there.exam
