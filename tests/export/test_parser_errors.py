"""The parser's errors become sentences that name the node, its module, and the remedy."""

import pytest

from proscale_deploy.export.parser_errors import ParserError, explain

NODE = "/pixel_decoder/transformer/encoder/layers.0/self_attn/ProScaleMSDeformAttn"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ParserError(
                "UNSUPPORTED_NODE", "Plugin not found,\nare name, version correct?", NODE, "ProScaleMSDeformAttn"
            ),
            f"node {NODE} (ProScaleMSDeformAttn) in module pixel_decoder.transformer.encoder.layers.0.self_attn: "
            "Plugin not found, are name, version correct? (UNSUPPORTED_NODE). "
            "Build the plugin for this TensorRT (proscale-deploy plugin build), or do without: --no-plugin",
        ),
        (
            ParserError("UNSUPPORTED_NODE", "No importer registered.", "/predictor/Foo", "Foo"),
            "node /predictor/Foo (Foo) in module predictor: No importer registered (UNSUPPORTED_NODE). "
            "This version has nothing for it: use a newer TensorRT",
        ),
        (
            ParserError(
                "INVALID_NODE", 'creator && "Plugin not found, are its name and version right?"', "/a/Foo", "Foo"
            ),
            "This version has nothing for it: use a newer TensorRT",
        ),
        (
            ParserError("INVALID_NODE", "Elementwise inputs have different types: Half and Float", "n", "Add"),
            "node n (Add): Elementwise inputs have different types: Half and Float (INVALID_NODE). "
            "Types must agree at every node of a strongly typed network",
        ),
        (
            ParserError("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.", "", ""),
            "Failed to parse the ONNX model (MODEL_DESERIALIZE_FAILED). The file is damaged",
        ),
        (ParserError("INTERNAL_ERROR", "?", "", ""), "Export the model again with this version"),
    ],
)
def test_one(error: ParserError, said: str) -> None:
    assert said in explain([error])


def test_many_are_cut_short() -> None:
    errors = [ParserError("INVALID_NODE", "wrong", f"n{index}", "Add") for index in range(7)]
    said = explain(errors)
    assert "node n2 (Add): wrong (INVALID_NODE); and 4 more." in said
    assert "n3" not in said


def test_none() -> None:
    assert "without a reason" in explain([])
