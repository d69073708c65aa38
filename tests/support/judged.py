"""Scores of made-up women, and a policy and a plan to judge them by."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mammo.assurance.plan import Plan, PromotionPolicy


def policy(**changes: object) -> PromotionPolicy:
    """Nothing is allowed to get worse, and nothing is asked beyond."""
    values: dict[str, object] = {
        "approve": "automatic",
        "bootstrap": 200,
        "average_precision": {"test": "non-inferiority", "margin": 0.0},
        "auroc": {"test": "non-inferiority", "margin": 0.0},
        "sensitivity_floor": 0.0,
        "subgroups": {"by": ["density"], "positives": 1, "loss": 0.0},
        "calibration": {"score": "brier", "margin": 0.0},
    }
    return PromotionPolicy.model_validate({**values, **changes})


def plan(looks: Mapping[str, object] | None = None, **of_policy: object) -> Plan:
    """Everything may change, and all is judged by `policy`, at five looks of 95 % each."""
    return Plan.model_validate(
        {
            "changes": {"params": "all", "data": "all", "code": "all"},
            "policy": policy(**of_policy),
            "unread": {"count": "lowest", "more": 0.0},
            "looks": {"number": 5, "error": 0.25, "spend": "equal", "renew": 0.5, **(looks or {})},
            "reference": {"version": "first", "average_precision": 1.0, "auroc": 1.0},
        }
    )


def women(number: int, seed: int, shift: float = 1.5) -> pd.DataFrame:
    """Two breasts a woman, cancer in the left one of every third; densities A and B in turn."""
    generator = np.random.default_rng(seed)
    target = np.array([[int(woman % 3 == 0), 0] for woman in range(number)]).ravel()
    logit = generator.normal(size=2 * number) + shift * target - 1
    return pd.DataFrame(
        {
            "patient_id": np.repeat([f"w{woman:04d}" for woman in range(number)], 2),
            "laterality": ["L", "R"] * number,
            "target": target,
            "probability": 1 / (1 + np.exp(-logit)),
            "density": np.repeat(["A" if woman % 2 else "B" for woman in range(number)], 2),
        }
    )
