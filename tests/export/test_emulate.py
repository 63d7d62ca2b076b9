"""The emulation of FP16 against numpy's."""

import numpy as np
import onnx
import pytest

from proscale_deploy.export.emulate import emulate_half
from proscale_deploy.export.ranges import run_network


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_every_result_is_rounded_as_numpy_rounds(scale: float) -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 18]>
    g (float[batch, 3, 20, 20] image) => (float[batch, 3, 20, 20] y)
    {
        a = Cast <to = 10> (image)
        b = Mul (a, factor)
        c = Tanh (b)
        d = Transpose <perm = [0, 1, 3, 2]> (c)
        e = Add (d, a)
        y = Cast <to = 1> (e)
    }
    """
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float16(0.1), "factor"))
    noise = np.random.default_rng(0).standard_normal((3, 20, 20))
    image = (scale * (noise + 0.01 * np.sign(noise))).astype(np.float32)  # no subnormal numbers
    ((found,),) = run_network(emulate_half(model), ["y"], [image])
    a = half(image)
    c = half(np.tanh(half(a * half(np.float32(0.1)))))
    np.testing.assert_array_equal(found[0], half(c.swapaxes(1, 2) + a))
