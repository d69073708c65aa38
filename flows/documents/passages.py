"""What only a person can know: the provider's own passages, kept in `documents/provider.yaml`.

Each passage has a key. Where the file has no text for it, the documents say what is to be written
there, so that a passage which was written once stays for every later version.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from mammo.base.errors import UserError

FILE = Path("documents/provider.yaml")
"""The path in the clone; the file may be missing."""

ASKED: Mapping[str, str] = {
    "provider": "name, address and contact of the provider of the system",
    "intended_purpose": "the medical purpose, and the part of the output in the decision",
    "intended_users": "who uses it, in what setting, and for which women",
    "out_of_scope": "uses and women for which it must not be used, and foreseeable misuse",
    "data_origin": (
        "where, when and on which machines the mammograms were taken, which women were eligible, "
        "and under which consent or ethics approval they are used"
    ),
    "reference_standard": (
        "how the label of a breast was established: pathology, follow-up and its length, who read "
        "and with which qualification, and how disagreement was resolved"
    ),
    "representativeness": (
        "how far the women of the data stand for those of the intended use, and which groups are "
        "missing"
    ),
    "external_testing": (
        "results on women from institutions that gave no data to training, tuning or internal "
        "testing; or that there was no external testing"
    ),
    "design_rationale": "the main design choices, why they were made, and what was assumed",
    "human_oversight": "who oversees the output, and how they can overrule it or switch it off",
    "forms_of_distribution": (
        "in which forms it is placed on the market, on which hardware it runs, with which other "
        "systems it works, and what its users see"
    ),
    "instructions_for_use": "the instructions for use, or where they are",
    "cybersecurity": "the measures against attacks on data, model and system",
    "unintended_outcomes": (
        "foreseeable unintended outcomes, and sources of risk to health, safety, fundamental "
        "rights and equal treatment"
    ),
    "metrics_rationale": "why these metrics and limits suit the intended purpose",
    "risk_management": "the risk management system: hazards, estimates, controls, residual risk",
    "standards": (
        "the harmonised standards that were applied, in full or in part, and other solutions "
        "where none was"
    ),
    "declaration_of_conformity": "a copy of the EU declaration of conformity",
    "post_market_monitoring": "the post-market monitoring plan",
    "planned_modifications": "each planned modification, and why it is needed",
    "data_collection": (
        "how new data are collected for a modification, how their reference standard is "
        "established, and how test women are kept apart from training"
    ),
    "update_procedure": (
        "how an update reaches its users, how they are told, and how performance is watched after"
    ),
    "benefits_and_risks": "benefits and risks of each modification, and how risks are lessened",
    "cumulative_impact": "what the modifications do to each other and all together",
}
"""What the provider is asked for, by the key of the passage."""


def read_passages(root: Path) -> dict[str, str]:
    """The provider's passages, by their keys; none if there is no file.

    Raises:
        UserError: if the file cannot be read, a key is unknown, or a passage is no text.
    """
    path = root / FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = str(error).replace(str(path), str(FILE))
        raise UserError(f"{FILE}: cannot be read as YAML: {said}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{FILE}: it must have one key for each passage, such as intended_purpose")
    unknown = sorted(str(key) for key in content if key not in ASKED)
    if unknown:
        raise UserError(
            f"{FILE}: no passage has the key {', '.join(unknown)}; the keys are {', '.join(ASKED)}"
        )
    empty = [key for key, text in content.items() if not isinstance(text, str) or not text.strip()]
    if empty:
        raise UserError(
            f"{FILE}: {', '.join(empty)} must be text; take out the key of a passage that is not "
            f"written yet"
        )
    return {key: text.strip() for key, text in content.items()}
