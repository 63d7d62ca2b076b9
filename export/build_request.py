"""What a build is asked for and what comes of it: the messages between a build and its child process."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from proscale_deploy.core.sidecar import BackendName, HardwareCompatibility
from proscale_deploy.export.engine_layers import Layer

__all__ = ["BuildRequest", "BuildResult"]


@dataclass(frozen=True)
class BuildRequest:
    """One build."""

    engine: str
    """The file to write."""
    backend: BackendName
    plugin: bool
    batch: tuple[int, int, int]
    workspace: int | None
    """Bytes."""
    optimization_level: int
    hardware_compatibility: HardwareCompatibility
    version_compatible: bool
    targets: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "BuildRequest":
        data: dict[str, Any] = json.loads(text)
        return cls(**data | {"batch": tuple(data["batch"]), "targets": tuple(data["targets"])})


@dataclass(frozen=True)
class BuildResult:
    """What the child process found out."""

    backend_version: str
    gpu: str | None
    compute_capability: str | None
    plugin_sha256: str | None
    evidence: Literal["engine inspector", "builder log"]
    layers: tuple[Layer, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "BuildResult":
        layers = (Layer(**{**layer, "nodes": tuple(layer["nodes"])}) for layer in data["layers"])
        return cls(**data | {"layers": tuple(layers)})
