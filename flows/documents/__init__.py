"""Documents that write themselves: a model card, a technical documentation, a change control plan.

It may import `evidence`, `audit` and what those stand on.
"""

__all__ = ["keep", "passages"]
