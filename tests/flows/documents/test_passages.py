"""The provider's own passages: taken in as they are, and strict about keys."""

from pathlib import Path

import pytest

from flows.documents.passages import ASKED, FILE, read_passages
from flows.documents.render import TEMPLATES, TITLES
from mammo.base.errors import UserError


def write(root: Path, text: str) -> None:
    (root / FILE).parent.mkdir(exist_ok=True)
    (root / FILE).write_text(text)


def test_no_file_and_an_empty_one_are_no_passages(tmp_path: Path) -> None:
    assert read_passages(tmp_path) == {}
    write(tmp_path, "")
    assert read_passages(tmp_path) == {}


def test_passages_are_read_by_their_keys(tmp_path: Path) -> None:
    write(tmp_path, "intended_purpose: |\n  Triage.\n\n  * of women\nprovider: A clinic\n")
    assert read_passages(tmp_path) == {
        "intended_purpose": "Triage.\n\n* of women",
        "provider": "A clinic",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("intended: x\npurpose: y\nprovider: z\n", "no passage has the key intended, purpose; "),
        ("provider:\n", "provider must be text"),
        ("provider: 3\n", "provider must be text"),
        ("- provider\n", "it must have one key for each passage"),
        ("provider: [\n", "cannot be read as YAML"),
        ("7: x\n", "no passage has the key 7"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_passages(tmp_path)
    assert str(error.value).startswith(f"{FILE}: {sentence}")
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("key", ASKED)
def test_each_passage_is_asked_for_in_a_document(key: str) -> None:
    templates = [(TEMPLATES / f"{name}.md.j2").read_text() for name in TITLES]
    assert any(f'provider("{key}")' in text for text in templates)
