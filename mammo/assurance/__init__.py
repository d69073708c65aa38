"""Whether a model may be trusted: plan, promotion, equivalence, tolerance, leakage, fingerprint.

No stage imports it. It may import `base`, `data`, `evaluation`, `imaging` and `learning`.
"""

__all__ = ["equivalence", "leakage", "paired", "plan", "promotion_rule", "tolerance"]
