"""From torch to ONNX: the files of a predictor that needs no torch.

It may import `portable` and what that stands on, `classifier` and `detector`.
"""

__all__ = ["export"]
