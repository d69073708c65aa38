"""Whether a model may be trusted: rule of promotion, equivalence of models, tolerance, leakage.

No stage imports it. It may import `base`, `data` and `evaluation`.
"""

__all__ = ["equivalence", "leakage", "paired", "promotion_rule", "tolerance"]
