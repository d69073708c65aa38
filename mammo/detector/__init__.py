"""The YOLO breast detector: its network, and the boxes that it finds.

It may import `base`, `imaging` and `learning`.
"""

__all__ = ["detection", "detector", "ultralytics_adapter"]
