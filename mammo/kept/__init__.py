"""What outlives a run, under a key of all that decides it: results of images, states of trainings.

It may import `base` and `learning`.
"""

__all__ = ["checkpoint", "code_version", "result_store"]
