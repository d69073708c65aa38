"""Scores of made-up women, and a policy to judge them by."""

import numpy as np
import pandas as pd

from mammo.base.settings import Policy


def policy(**changes: object) -> Policy:
    """Nothing is allowed to get worse, and nothing is asked beyond."""
    values: dict[str, object] = {
        "approve": "automatic",
        "bootstrap": 200,
        "confidence": 0.95,
        "average_precision": {"test": "non-inferiority", "margin": 0.0},
        "auroc": {"test": "non-inferiority", "margin": 0.0},
        "sensitivity_floor": 0.0,
        "subgroups": {"by": ["density"], "positives": 1, "loss": 0.0},
        "calibration": {"score": "brier", "margin": 0.0},
    }
    return Policy.model_validate({**values, **changes})


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
