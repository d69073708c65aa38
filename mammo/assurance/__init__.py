"""Whether a model may be trusted: rule of promotion, equivalence, tolerance, leakage, fingerprint.

No stage imports it. It may import `base`, `data`, `evaluation`, `imaging` and `learning`.
"""

__all__ = ["equivalence", "leakage", "paired", "promotion_rule", "tolerance"]
