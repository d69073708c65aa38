"""The whole predictor without torch: its networks as ONNX, run by ONNX Runtime.

It may import `serving`, `cropping`, `intake` and what these stand on, and no torch.
"""

__all__ = ["predictor"]
