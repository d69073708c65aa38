"""The search for the settings with which the classifier learns best.

It may import `classifier_training` and what that stands on.
"""

__all__ = ["search", "shared"]
