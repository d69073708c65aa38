"""A registered model at work: it is loaded from the registry, and answers over HTTP.

It may import `audit` and what that stands on.
"""

__all__ = ["load", "serve", "standalone"]
