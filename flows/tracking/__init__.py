"""MLflow: runs, registered versions and their aliases, and where their artifacts are.

It may import `pipeline` and what that stands on.
"""

__all__ = [
    "addresses",
    "aliases",
    "arithmetic",
    "find_version",
    "mutex",
    "names",
    "preflight",
    "register",
    "registry",
    "runs",
    "served_model",
]
