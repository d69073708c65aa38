"""May a model be trusted: the rule of promotion, equivalence of two models, tolerance, leakage.

No stage enters it. It may import `base`, `data` and `evaluation`.
"""

__all__ = ["equivalence", "leakage", "paired", "promotion_rule", "tolerance"]
