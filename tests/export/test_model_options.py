"""Every option builds, runs and learns, at sizes nobody trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.spec import ModelSpec, PixelDecoderSpec, ProScaleSpec
from proscale_deploy.core.types import Size
from proscale_deploy.export.model import build_model
from proscale_deploy.export.model.swin import SEPARATED, _shifted_window_mask
from support.reference import SMALL, SMALL_RESNET, SMALL_SWIN

PROSCALE = SMALL.pixel_decoder.proscale
SWIN = replace(SMALL, backbone=SMALL_SWIN)


def _encoder(**changes: object) -> PixelDecoderSpec:
    return replace(SMALL.pixel_decoder, **changes)


def _proscale(**changes: object) -> ModelSpec:
    assert isinstance(PROSCALE, ProScaleSpec)
    return replace(SMALL, pixel_decoder=_encoder(proscale=replace(PROSCALE, **changes)))


OPTIONS: dict[str, ModelSpec] = {
    "as released, small": SMALL,
    "swin": SWIN,
    "swin, window 12, absolute positions": replace(
        SMALL, backbone=replace(SMALL_SWIN, window=12, absolute_positions=True, pretrain_size=32)
    ),
    "swin, window 1": replace(SMALL, backbone=replace(SMALL_SWIN, window=1)),
    "resnext, stride in 1x1": replace(SMALL, backbone=replace(SMALL_RESNET, groups=4, stride_in_1x1=True)),
    "dilated": replace(SMALL, backbone=replace(SMALL_RESNET, res5_dilation=2)),
    "mask2former": replace(SMALL, pixel_decoder=_encoder(proscale=None, layers=2)),
    "no encoder layers": replace(SMALL, pixel_decoder=_encoder(proscale=None, layers=0)),
    "no stages": _proscale(stage_layers=(0, 0, 0)),
    "last stage only, no re-calibration": _proscale(stage_layers=(0, 0, 2), recalibration="none"),
    "residual, conv": _proscale(stage_layers=(2, 1, 1), residual=True, recalibration="conv", mask_op="conv"),
    "no norm": replace(SMALL, pixel_decoder=_encoder(norm="")),
    "one point, one head": replace(SMALL, pixel_decoder=_encoder(heads=1, points=1)),
    "wider decoder": replace(SMALL, decoder=replace(SMALL.decoder, channels=96, heads=2)),
    "enforced projection, pre-norm": replace(
        SMALL, decoder=replace(SMALL.decoder, enforce_input_proj=True, pre_norm=True)
    ),
    "one query, one class": replace(SMALL, decoder=replace(SMALL.decoder, queries=1), num_classes=1),
}


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (96, 64)], ids=str)
@pytest.mark.parametrize("option", OPTIONS)
def test_builds_runs_and_learns(option: str, size: Size) -> None:
    torch.manual_seed(0)
    spec = OPTIONS[option]
    model = build_model(spec).train()
    outputs = model.layer_outputs(torch.randn(2, 3, *size))
    for class_logits, mask_logits in outputs:
        assert class_logits.shape == (2, spec.decoder.queries, spec.num_classes + 1)
        assert mask_logits.shape == (2, spec.decoder.queries, size[0] // 4, size[1] // 4)
        assert class_logits.isfinite().all()
        assert mask_logits.isfinite().all()
    sum(classes.square().mean() + masks.square().mean() for classes, masks in outputs).backward()
    without_layers = option in ("no encoder layers", "no stages")
    for name, parameter in model.named_parameters():
        if without_layers and name == "sem_seg_head.pixel_decoder.transformer.level_embed":
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("option", ["as released, small", "swin", "mask2former", "residual, conv"])
def test_rows_of_a_batch_do_not_see_each_other(option: str) -> None:
    torch.manual_seed(0)
    model = build_model(OPTIONS[option]).eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        together = model(images)
        apart = [model(image[None]) for image in images]
    for index, output in enumerate(together):
        torch.testing.assert_close(output, torch.cat([row[index] for row in apart]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 33, 64), (1, 3, 64, 48), (3, 64, 64), (1, 3, 0, 64)])
def test_other_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiples of 32"):
        build_model(SMALL)(torch.zeros(shape))


@pytest.mark.parametrize(("size", "window"), [((7, 7), 7), ((14, 21), 7), ((24, 12), 12), ((10, 15), 5)])
def test_shifted_windows_keep_strangers_apart(size: Size, window: int) -> None:
    """Against the official construction: nine numbered regions of the rolled map."""
    regions = np.zeros(size)
    cuts = (slice(0, -window), slice(-window, -(window // 2)), slice(-(window // 2), None))
    for index, (rows, columns) in enumerate((rows, columns) for rows in cuts for columns in cuts):
        regions[rows, columns] = index
    mask = _shifted_window_mask(size, window)
    position = 0
    for top in range(0, size[0], window):
        for left in range(0, size[1], window):
            region = regions[top : top + window, left : left + window].flatten()
            expected = np.where(region[:, None] == region[None], 0, SEPARATED)
            assert np.array_equal(mask[0, position, 0], expected)
            position += 1
    assert position == mask.shape[1]
