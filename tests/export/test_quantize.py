"""Ranges and Q/DQ pairs against arithmetic written out."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from proscale_deploy.export.blocks import block_of
from proscale_deploy.export.quantize import activations, insert_pairs, quantizable
from proscale_deploy.export.ranges import best_clip, calibrate, largest_magnitudes, run_network

RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((4, 5)).astype(np.float32) * np.array([1, 0.1, 10, 0.001, 0], np.float32)


@pytest.fixture
def model() -> onnx.ModelProto:
    """A matrix product with weights, and one without."""
    text = """
    <ir_version: 9, opset_import: ["" : 18]>
    g (float[batch, 6, 4] image) => (float[batch, 6, 5] product, float[batch, 6, 6] other)
    <float[4, 5] weights = {0}>
    {
        [first] product = MatMul (image, weights)
        [turned] image_t = Transpose <perm = [0, 2, 1]> (image)
        [second] other = MatMul (image, image_t)
    }
    """
    model = onnx.parser.parse_model(text.replace("{0}", "{" + ",".join(["0.0"] * 20) + "}"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS, "weights"))
    return model


def rounded(x: np.ndarray, step: np.ndarray | float) -> np.ndarray:
    return np.clip(np.round(x.astype(np.float64) / step), -127, 127) * step


def test_a_product_of_pairs_is_the_product_of_rounded_numbers(model: onnx.ModelProto) -> None:
    assert quantizable(model) == ["first"]
    assert activations(model, {"first"}) == ["image"]
    quantized = insert_pairs(model, {"first"}, {"image": 2.0})
    image = RNG.standard_normal((6, 4)).astype(np.float32)
    (product, other), *_ = run_network(quantized, ["product", "other"], [image])
    step = float(np.float16(2 / 127))
    steps = np.float16(np.abs(WEIGHTS).max(axis=0) / 127).astype(np.float64)
    steps[4] = 1
    expected = rounded(image, step) @ rounded(WEIGHTS, steps)
    np.testing.assert_allclose(product[0], expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other[0], image @ image.T, rtol=1e-5, atol=1e-6)  # not rounded
    assert "weights" not in {tensor.name for tensor in quantized.graph.initializer}


RESIDUAL = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[1, 2, 4, 4] image) => (float[1, 2, 4, 4] sum)
<float[2, 2, 1, 1] w1 = {1.0, 2.0, 3.0, 4.0}, float[2, 2, 1, 1] w2 = {1.0, 2.0, 3.0, 4.0}>
{
    [conv] a = Conv (image, w1)
    [shortcut] b = Conv (image, w2)
    [add] sum = Add (a, b)
}
"""


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({"conv", "shortcut", "add"}, ["image", "b"]),
        ({"shortcut", "add"}, ["image", "a"]),
        ({"conv", "shortcut"}, ["image"]),  # the addition is to stay more exact
        ({"add"}, []),
    ],
)
def test_the_other_summand_of_a_fused_addition_is_int8_too(chosen: set[str], wanted: list[str]) -> None:
    model = onnx.parser.parse_model(RESIDUAL)
    assert activations(model, chosen) == wanted
    pairs = insert_pairs(model, chosen, dict.fromkeys(wanted, 1.0)).graph.node
    assert [node.input[0] for node in pairs if node.op_type == "QuantizeLinear"] == wanted


def test_the_best_clip_is_the_best() -> None:
    numbers = np.abs(RNG.standard_normal(50_000)).astype(np.float32)
    numbers[0] = 40  # an outlier: its loss is less than that of coarse steps for all others
    shares = np.linspace(0.2, 1, 81)
    errors = [((rounded(numbers, share * 40 / 127) - numbers) ** 2).sum() for share in shares]
    found = best_clip(numbers, 40.0)
    at = int(np.argmin(np.abs(shares * 40 - found)))
    assert errors[at] < 1.02 * min(errors)
    assert errors[at] < 0.9 * errors[-1]
    uniform = np.linspace(0, 1, 10_000, dtype=np.float32)
    assert best_clip(uniform, 1.0) > 0.98
    assert best_clip(np.zeros(5, np.float32), 0.0) == 0


def test_calibration_looks_at_all_images(model: onnx.ModelProto) -> None:
    images = [RNG.standard_normal((6, 4)).astype(np.float32) for _ in range(3)]
    everything = np.abs(np.stack(images))
    assert largest_magnitudes(model, ["image"], images)["image"] == everything.max()
    found = calibrate(model, ["image"], images)
    assert found == {"image": best_clip(everything.ravel(), float(everything.max()))}


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("/backbone/stem/conv1/Conv", "backbone stem"),
        ("/backbone/res4/res4.5/conv3/Conv", "backbone res4"),
        ("/backbone/patch_embed/proj/Conv", "backbone stem"),
        ("/backbone/layers.2/blocks.1/attn/qkv/MatMul", "backbone stage 2"),
        ("/backbone/norm1/LayerNormalization", "backbone norms"),
        ("/pixel_decoder/input_proj.0/input_proj.0.0/Conv", "input projections"),
        ("/pixel_decoder/transformer/encoder/token_excite/ops/MatMul", "recalibration"),
        ("/pixel_decoder/transformer/encoder/layers.8/linear1/MatMul", "encoder layer 8"),
        ("/pixel_decoder/adapter_1/Conv", "pixel embedding"),
        ("/predictor/transformer_ffn_layers.5/linear1/MatMul", "decoder layer 5"),
        ("/predictor/transformer_cross_attention_layers.0/multihead_attn/MatMul_2", "decoder layer 0"),
        ("/predictor/class_embed/MatMul", "class head"),
        ("/predictor/mask_embed/layers.0_6/MatMul", "mask head"),
        ("Constant_0", "other"),
    ],
)
def test_blocks(name: str, block: str) -> None:
    assert block_of(name) == block
