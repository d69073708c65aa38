"""The YOLO breast detector: its network, and the boxes that it finds.

It may import `base`, `outs` and `imaging`.
"""

__all__ = ["detector", "ultralytics_adapter"]
