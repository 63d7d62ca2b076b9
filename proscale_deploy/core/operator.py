"""Multi-scale deformable attention as one ONNX node: its name and attributes."""

__all__ = ["DOMAIN", "OP_TYPE", "VERSION"]

DOMAIN = "proscale"
"""ONNX domain of the node."""

OP_TYPE = "ProScaleMSDeformAttn"
"""ONNX op_type, and the name of the TensorRT plugin: TensorRT finds a plugin by the op_type alone."""

VERSION = 1
"""Version of the domain in opset_import, and of the plugin."""
