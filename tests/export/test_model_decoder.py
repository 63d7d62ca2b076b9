"""The rewritten decoder against its official form."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from proscale_deploy.core.types import Size
from proscale_deploy.export.model import MaskFormer, build_model
from proscale_deploy.export.model.decoder import BLOCKED, attention_bias
from proscale_deploy.export.model.layers import resize_bilinear
from proscale_deploy.export.model.positions import sine_positions
from support.official import official_form, official_mask, official_positions
from support.reference import SMALL, relative_l2


def _random_model(**decoder: object) -> MaskFormer:
    """A small model whose parameters are all far from their start values."""
    torch.manual_seed(7)
    model = build_model(replace(SMALL, decoder=replace(SMALL.decoder, **decoder)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 8)])
@pytest.mark.parametrize("channels", [4, 12, 64])
def test_positions_equal_the_official_cumulative_sums(size: Size, channels: int) -> None:
    found = sine_positions(size, channels, torch.zeros(1))
    torch.testing.assert_close(found, official_positions(size, channels), atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 2), (8, 12), (16, 24)])
def test_masks_from_resized_features_equal_resized_masks(size: Size) -> None:
    torch.manual_seed(0)
    embed, features = torch.randn(2, 9, 32), torch.randn(2, 32, 16, 24)
    official = official_mask(torch.einsum("bqc,bchw->bqhw", embed, features), size, heads=1)
    found = attention_bias(embed @ resize_bilinear(features, size).flatten(2))
    assert torch.equal(found[:, 0] == BLOCKED, official)
    assert torch.equal(found[:, 0] == 0, ~official)


def test_a_query_that_sees_nothing_looks_everywhere() -> None:
    logits = torch.tensor([[[-1.0, 2.0, 0.0], [-1.0, -3.0, -0.5]]])
    assert attention_bias(logits).tolist() == [[[[BLOCKED, 0, 0], [0, 0, 0]]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_blocked_pixel_has_no_weight_and_no_infinity(dtype: torch.dtype) -> None:
    scores = torch.tensor([-1000.0, 1000.0, -1000.0], dtype=dtype)
    bias = torch.tensor([0, BLOCKED, BLOCKED], dtype=dtype)
    assert bias[1] == BLOCKED
    assert (scores + bias).isfinite().all()
    assert (scores + bias).softmax(-1).tolist() == [1, 0, 0]
    lowest = torch.tensor(-30000.0, dtype=dtype)
    assert (lowest + bias).isfinite().all()


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("size", [(32, 96), (96, 64)])
def test_every_layer_equals_the_official_form(pre_norm: bool, size: Size) -> None:
    model = _random_model(pre_norm=pre_norm)
    image = torch.randn(2, 3, *size)
    with torch.inference_mode():
        found, official = model.layer_outputs(image), official_form(model).layer_outputs(image)
        last = model(image)
    assert len(found) == len(official) == SMALL.decoder.layers + 1
    for own, expected in zip(found, official, strict=True):
        assert relative_l2(own[0], expected[0]) < 1e-5
        assert relative_l2(own[1], expected[1]) < 1e-5
    assert torch.equal(last[0], found[-1][0])
    assert torch.equal(last[1], found[-1][1])


def test_gradients_equal_those_of_the_official_form() -> None:
    model = _random_model()
    official = official_form(model)
    image = torch.randn(2, 3, 64, 32)
    for network in (model, official):
        loss = sum(
            F.softplus(masks).mean() + F.softplus(classes).mean() for classes, masks in network.layer_outputs(image)
        )
        loss.backward()
    for (name, own), expected in zip(model.named_parameters(), official.parameters(), strict=True):
        assert own.grad is not None, name
        assert (own.grad - expected.grad).norm() <= 1e-4 * expected.grad.norm() + 1e-6, name


@pytest.mark.parametrize("layers", [0, 1])
def test_few_layers(layers: int) -> None:
    model = _random_model(layers=layers)
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        outputs = model.layer_outputs(image)
        class_logits, mask_logits = model(image)
    assert len(outputs) == layers + 1
    assert all(len(classes) == len(masks) == 2 for classes, masks in outputs)
    assert class_logits.shape == (2, 7, 6)
    assert mask_logits.shape == (2, 7, 16, 16)
