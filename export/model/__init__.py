"""PRO-SCALE and Mask2Former in PyTorch, in the form that is trained and exported."""

from proscale_deploy.export.model.mask_former import MaskFormer, build_model

__all__ = ["MaskFormer", "build_model"]
