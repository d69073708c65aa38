"""A registered model at work: taken from the registry, and its answers over HTTP.

It may import `audit` and what that stands on.
"""

__all__ = ["load", "serve", "standalone"]
