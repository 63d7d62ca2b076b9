"""Deformable attention against a float64 loop over samples, its gradients, and the node that stands for it in ONNX."""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch

from proscale_deploy.core.operator import DOMAIN, OP_TYPE, VERSION, Attributes
from proscale_deploy.core.types import Size
from proscale_deploy.export.model.deform_attn import MSDeformAttn, ms_deform_attn
from support.deform_attn import deform_attn_by_hand

LEVELS: list[list[Size]] = [
    [(3, 5)],
    [(1, 1)],
    [(1, 1), (1, 4)],
    [(2, 3), (5, 1)],
    [(2, 2), (4, 3), (7, 6)],
    [(1, 2), (3, 3), (2, 5), (4, 1)],
]


def _inputs(levels: list[Size], heads: int, points: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(len(levels))
    tokens = sum(h * w for h, w in levels)
    value = random.standard_normal((2, tokens, heads * 3)).astype(np.float32)
    sampling = random.standard_normal((2, tokens, heads * len(levels) * points * 3)).astype(np.float32) * spread
    return torch.from_numpy(value), torch.from_numpy(sampling)


@pytest.mark.parametrize("spread", [0.0, 0.7, 6.0], ids=["on pixels", "near", "past the borders"])
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_equals_a_float64_loop(levels: list[Size], spread: float) -> None:
    value, sampling = _inputs(levels, heads=2, points=3, spread=spread)
    found = ms_deform_attn(value, sampling, 2, 3, levels)
    expected = deform_attn_by_hand(value.numpy(), sampling.numpy(), Attributes(2, 3, tuple(levels)))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5, rtol=0)


def test_zeros_outside_a_map() -> None:
    """A sample half a pixel past the border keeps half of the value, one a pixel past it nothing."""
    value = torch.ones(1, 2, 1)
    for dx, expected in ((-0.5, 0.5), (-1.0, 0.0), (-1e4, 0.0), (1.0, 1.0), (1.5, 0.5), (2.0, 0.0)):
        sampling = torch.tensor([dx, 0.0, 0.0]).expand(1, 2, 3)
        assert ms_deform_attn(value, sampling, 1, 1, [(1, 2)])[0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    levels = [(9, 60), (18, 120)]
    value, sampling = _inputs(levels, heads=2, points=2, spread=2.0)
    value, sampling = value.half(), sampling.half()
    found = ms_deform_attn(value, sampling, 2, 2, levels)
    assert found.dtype == torch.float16
    exact = ms_deform_attn(value.float(), sampling.float(), 2, 2, levels)
    assert torch.equal(found, exact.half())


def test_gradients_equal_finite_differences() -> None:
    levels = [(5, 6)]
    random = np.random.default_rng(3)
    # Samples in the middle between pixels: a bilinear surface has kinks at whole ones.
    offsets = random.integers(-3, 3, (2, 30, 2 * 2 * 2)) + random.uniform(0.3, 0.7, (2, 30, 2 * 2 * 2))
    sampling = np.concatenate([offsets, random.standard_normal((2, 30, 2 * 2))], -1)
    inputs = [torch.tensor(x, requires_grad=True) for x in (random.standard_normal((2, 30, 6)), sampling)]
    weight = torch.from_numpy(random.standard_normal((2, 30, 6)))

    def loss(value: torch.Tensor, sampling: torch.Tensor) -> torch.Tensor:
        return (ms_deform_attn(value, sampling, 2, 2, levels) * weight).sum()

    loss(*inputs).backward()
    for index, tensor in enumerate(inputs):
        direction = torch.from_numpy(random.uniform(-1, 1, tensor.shape))
        with torch.no_grad():
            up, down = (
                loss(*(x + step * direction if i == index else x for i, x in enumerate(inputs))).item()
                for step in (0.01, -0.01)
            )
        assert (up - down) / 0.02 == pytest.approx((tensor.grad * direction).sum().item(), rel=1e-3)


def test_the_start_is_a_ring_around_the_token() -> None:
    layer = MSDeformAttn(channels=16, levels=2, heads=8, points=3)
    offsets = layer.sampling_offsets.bias.detach().reshape(8, 2, 3, 2)
    assert torch.equal(layer.sampling_offsets.weight, torch.zeros(96, 16))
    torch.testing.assert_close(offsets.abs().amax(-1), torch.tensor([1.0, 2.0, 3.0]).expand(8, 2, 3))
    torch.testing.assert_close(offsets[1, 0, 0], torch.ones(2))
    torch.testing.assert_close(offsets[2, 1, 1], torch.tensor([0.0, 2.0]), atol=1e-6, rtol=0)


class _Wrapped(torch.nn.Module):
    def __init__(self, levels: list[Size]) -> None:
        super().__init__()
        self.attention = MSDeformAttn(16, len(levels), heads=2, points=4)
        self.levels = levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, torch.zeros(1, 1, 16), self.levels)


def test_exported_as_one_node() -> None:
    levels = [(2, 3), (4, 6)]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the TorchScript exporter as such
        torch.onnx.export(
            _Wrapped(levels).eval(),
            (torch.zeros(1, 30, 16),),
            file,
            dynamo=False,
            opset_version=18,
            dynamic_axes={"x": {0: "batch"}},
            input_names=["x"],
            custom_opsets={DOMAIN: VERSION},
        )
    graph = onnx.load_from_string(file.getvalue()).graph
    nodes = [node for node in graph.node if node.domain == DOMAIN]
    assert [node.op_type for node in nodes] == [OP_TYPE]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in nodes[0].attribute}
    assert attributes == {"heads": 2, "points": 4, "levels": [2, 3, 4, 6]}
    assert not {"GridSample", "Softmax", "Shape"} & {node.op_type for node in graph.node}
