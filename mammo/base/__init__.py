"""What every room stands on: errors, files that appear whole, settings, progress, fixed seeds.

It imports nothing of ours but `mammo.pins`.
"""

__all__ = [
    "atomic_files",
    "determinism",
    "errors",
    "processor",
    "progress",
    "settings",
]
