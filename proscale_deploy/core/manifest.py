"""What a model file says about itself: one JSON text in the ONNX metadata_props, and again in an engine's sidecar."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, InputSpec, Thresholds

__all__ = ["METADATA_KEY", "Calibration", "Conversion", "Manifest"]

METADATA_KEY = "proscale_deploy"
"""Key of the manifest in ONNX metadata_props."""

_SCHEMA = 1


@dataclass(frozen=True)
class Calibration:
    """The pictures that the ranges of an INT8 file come from."""

    source: str
    """As given: a folder, a glob, a video."""
    images: int
    sha256: str
    """Of the network's inputs made of them, in their order."""


@dataclass(frozen=True)
class Conversion:
    """How a file of reduced precision was made."""

    io: str
    """Type of the network's input and outputs: fp32 or fp16."""
    blocks: tuple[tuple[str, str], ...]
    """(block, precision) of each part of the network, in the order of the data."""
    excluded: tuple[str, ...] = ()
    """Name patterns of nodes that were kept one precision higher."""
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs besides the network itself."""

    architecture: str
    """One line for people: "PRO-SCALE 3-3-3, ResNet-50"."""
    input: InputSpec
    classes: tuple[ClassInfo, ...]
    """K entries, in the order of the logits."""
    thresholds: Thresholds
    queries: int
    precision: str
    """Of the file: fp32, fp16 or int8; int8 means FP16 with INT8 where it gains, see ``conversion``."""
    config_sha256: str
    weights_sha256: str
    version: str
    """proscale-deploy that wrote the file."""
    conversion: Conversion | None = None
    """None for FP32."""

    def to_json(self) -> str:
        """Compact JSON; :meth:`from_json` gives the same manifest back."""
        return json.dumps({"schema": _SCHEMA, **dataclasses.asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, origin: str) -> "Manifest":
        """Read a manifest; ``origin`` names the file in messages.

        Raises:
            InputError: the text is not a manifest of this schema.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            schema = data.pop("schema")
            if schema == _SCHEMA:
                data["input"] = InputSpec(**_tuples(data["input"]))
                data["classes"] = tuple(ClassInfo(**_tuples(c)) for c in data["classes"])
                data["thresholds"] = Thresholds(**_tuples(data["thresholds"]))
                if data.get("conversion") is not None:
                    data["conversion"] = _conversion(data["conversion"])
                return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
            raise InputError(f"{origin}: damaged manifest ({error!r}); export the model again") from error
        raise InputError(f"{origin}: manifest schema {schema}, this version reads {_SCHEMA}; export the model again")


def _conversion(data: dict[str, Any]) -> Conversion:
    blocks = tuple((str(block), str(precision)) for block, precision in data.pop("blocks"))
    calibration = data.pop("calibration")
    return Conversion(
        blocks=blocks, calibration=None if calibration is None else Calibration(**calibration), **_tuples(data)
    )


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists only; the dataclasses hold tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
