"""The whole network, with the entries of an official checkpoint."""

from typing import cast

from torch import Tensor, nn

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.spec import BackboneSpec, ModelSpec, ResNetSpec
from proscale_deploy.export.model.decoder import MultiScaleMaskedTransformerDecoder
from proscale_deploy.export.model.layers import map_size
from proscale_deploy.export.model.pixel_decoder import PixelDecoder
from proscale_deploy.export.model.resnet import ResNet
from proscale_deploy.export.model.swin import SwinTransformer

__all__ = ["MaskFormer", "build_model"]

SIZE_DIVISIBILITY = 32


class MaskFormerHead(nn.Module):
    """Pixel decoder and transformer decoder."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(spec.pixel_decoder, spec.backbone.channels)
        self.predictor = MultiScaleMaskedTransformerDecoder(
            spec.decoder, spec.pixel_decoder.channels, spec.pixel_decoder.mask_channels, spec.num_classes
        )


class MaskFormer(nn.Module):
    """PRO-SCALE or Mask2Former: image -> class and mask logits of Q queries."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = _backbone(spec.backbone)
        self.sem_seg_head = MaskFormerHead(spec)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """``image`` (B, 3, H, W) float, normalised, padded to multiples of 32 -> class_logits (B, Q, K+1), mask_logits
        (B, Q, H/4, W/4). Raises InputError for other sizes."""
        return cast(tuple[Tensor, Tensor], self.sem_seg_head.predictor(*self.encode(image)))

    def layer_outputs(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(class_logits, mask_logits) from the learned queries, then from each decoder layer; the last is forward()."""
        return self.sem_seg_head.predictor.layer_outputs(*self.encode(image))

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Backbone and pixel decoder: ``image`` (B, 3, H, W) -> mask_features (B, M, H/4, W/4), encoded maps of res5,
        res4, res3 (B, C, H_i, W_i)."""
        height, width = map_size(image) if image.ndim == 4 else (0, 0)
        if height % SIZE_DIVISIBILITY or width % SIZE_DIVISIBILITY or not height * width:
            raise InputError(
                f"expected an image (batch, 3, height, width) with sides that are multiples of {SIZE_DIVISIBILITY}, "
                f"found {tuple(image.shape)}: pad it with zeros, bottom and right"
            )
        return cast(tuple[Tensor, list[Tensor]], self.sem_seg_head.pixel_decoder(self.backbone(image)))


def build_model(spec: ModelSpec) -> MaskFormer:
    """The network of ``spec`` with the official start values, in training mode."""
    return MaskFormer(spec)


def _backbone(spec: BackboneSpec) -> ResNet | SwinTransformer:
    return ResNet(spec) if isinstance(spec, ResNetSpec) else SwinTransformer(spec)
