"""Patches: small pictures of lesions and of healthy tissue, from which a backbone learns first.

No stage of the root's dvc.yaml enters it, those of pretraining/dvc.yaml do. It may import
`classifier_training`, `intake`, `evaluation` and what these stand on.
"""

__all__ = ["cut", "pretrain", "settings", "tables"]
