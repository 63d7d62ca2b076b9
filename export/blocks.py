"""The parts of a network that get a precision of their own, by the names of the nodes."""

import re
from collections.abc import Iterable
from typing import Final

import onnx

__all__ = ["OTHER", "block_of", "blocks_of"]

OTHER: Final = "other"
"""The block of nodes whose names are not of a module."""

_BLOCKS: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"/backbone/(stem|patch_embed|Add|Transpose|Resize)", "backbone stem"),
        (r"/backbone/res(\d)/", "backbone res{}"),  # ResNet
        (r"/backbone/layers\.(\d+)/", "backbone stage {}"),  # Swin
        (r"/backbone/", "backbone norms"),
        (r"/pixel_decoder/transformer/encoder/layers\.(\d+)/", "encoder layer {}"),
        (r"/pixel_decoder/transformer/encoder/token_excite", "recalibration"),
        (r"/pixel_decoder/(transformer/encoder|input_proj)", "input projections"),
        (r"/pixel_decoder/", "pixel embedding"),
        (r"/predictor/transformer_(?:cross_attention|self_attention|ffn)_layers\.(\d+)/", "decoder layer {}"),
        (r"/predictor/class_embed", "class head"),
        (r"/predictor/", "mask head"),
    )
)
"""First match wins. The mask head makes the attention masks too; constants and glue count with what they stand in."""


def block_of(name: str) -> str:
    """The block of a node by its name."""
    for pattern, block in _BLOCKS:
        if match := pattern.match(name):
            return block.format(*match.groups())
    return OTHER


def blocks_of(nodes: Iterable[onnx.NodeProto]) -> tuple[str, ...]:
    """The blocks that do arithmetic, in the order of the data."""
    heavy = ("Conv", "MatMul", "Gemm", "LayerNormalization", "InstanceNormalization", "Mul")
    return tuple(dict.fromkeys(block_of(node.name) for node in nodes if node.op_type in heavy))
