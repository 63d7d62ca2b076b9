"""What stands beside an engine file, ``M.engine.json``: where it may run, what it was made of, how it was built.

An engine runs on the GPU, TensorRT and plugin it was built with. Told apart here, before a byte of it is deserialised.
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from proscale_deploy.core.errors import EngineMismatch, InputError
from proscale_deploy.core.files import replacing
from proscale_deploy.core.manifest import Manifest

__all__ = [
    "BackendName",
    "BuiltPlugin",
    "HardwareCompatibility",
    "Precision",
    "Sidecar",
    "file_sha256",
    "host_platform",
    "read_sidecar",
    "sidecar_path",
    "write_sidecar",
]

BackendName = Literal["tensorrt", "tensorrt-rtx"]

HardwareCompatibility = Literal["none", "ampere-plus", "same-compute-capability"]
"""On which other GPUs a TensorRT engine runs; TensorRT-RTX has targets instead."""

_SCHEMA = 1


@dataclass(frozen=True)
class BuiltPlugin:
    """The plugin library an engine was built with."""

    name: str
    version: str
    """Of the plugin, not of the project."""
    sha256: str


@dataclass(frozen=True)
class Precision:
    """Types as built, each with the number of engine layers that compute in it: {"FP16": 160, "FP32": 6}."""

    evidence: Literal["engine inspector", "builder log"]
    """The log where no GPU was at hand: an engine that cannot be loaded cannot be inspected."""
    layers: Mapping[str, int]
    critical: Mapping[str, int]
    """Of the layers that take the time: convolutions, matrix products, the operator's plugin."""
    in_file: Mapping[str, int]
    """The same of the nodes in the ONNX file."""
    kept: Mapping[str, tuple[int, int]]
    """Type in the file -> of its nodes: how many were built in it, and how many the evidence tells of."""


@dataclass(frozen=True)
class Sidecar:
    """Facts of one engine file."""

    engine_sha256: str
    onnx_sha256: str
    backend: BackendName
    backend_version: str
    """ "10.13.3.9"."""
    platform: str
    """ "linux-x86_64"."""
    gpu: str | None
    """Name of the GPU it was built on; None without one (TensorRT-RTX)."""
    compute_capability: str | None
    """Of that GPU: "8.7"."""
    targets: tuple[str, ...]
    """TensorRT-RTX: the compute capabilities asked for, "8.6"; none: what TensorRT-RTX takes by default."""
    hardware_compatibility: HardwareCompatibility
    version_compatible: bool
    batch: tuple[int, int, int]
    """Smallest, best and largest batch."""
    workspace: int | None
    """Bytes; None: no limit of ours."""
    optimization_level: int
    plugin: BuiltPlugin | None
    precision: Precision
    seconds: float
    """Of the build alone."""
    version: str
    """proscale-deploy that built it."""
    manifest: Manifest

    def to_json(self) -> str:
        """Indented JSON; :meth:`from_json` gives the same facts back."""
        facts = dataclasses.asdict(self) | {"manifest": json.loads(self.manifest.to_json())}
        return json.dumps({"schema": _SCHEMA, **facts}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> "Sidecar":
        """Read a sidecar; ``origin`` names the file in messages.

        Raises:
            EngineMismatch: the text is no sidecar of this schema.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            schema = data.pop("schema")
            if schema == _SCHEMA:
                data["manifest"] = Manifest.from_json(json.dumps(data["manifest"]), origin)
                data["precision"] = _precision(data["precision"])
                data["plugin"] = data["plugin"] and BuiltPlugin(**data["plugin"])
                data["targets"], data["batch"] = tuple(data["targets"]), tuple(data["batch"])
                if data["backend"] in get_args(BackendName):
                    return cls(**data)
                raise ValueError(data["backend"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
            raise EngineMismatch(f"{origin}: damaged ({error!r}); build the engine again") from error
        raise EngineMismatch(f"{origin}: schema {schema}, this version reads {_SCHEMA}; build the engine again")

    def check_fits(self, engine: Path, *, version: str, compute_capability: str, plugin_sha256: str | None) -> None:
        """Refuse an engine that was not built for this machine.

        Args:
            engine: its file, for the message.
            version: of the installed TensorRT or TensorRT-RTX.
            compute_capability: of the GPU at hand, "8.7".
            plugin_sha256: of the plugin library at hand; None without one.

        Raises:
            EngineMismatch: built for another platform, GPU, version or plugin.
        """
        reasons = [
            reason
            for reason in (
                self._platform_reason(),
                self._version_reason(version),
                self._gpu_reason(compute_capability),
                self._plugin_reason(plugin_sha256),
            )
            if reason
        ]
        if reasons:
            raise EngineMismatch(
                f"{engine}: {'; '.join(reasons)}; build it again here: "
                f"proscale-deploy build M.onnx --output {engine.name} --backend {self.backend}"
            )

    def _platform_reason(self) -> str | None:
        # Engines of TensorRT-RTX are portable between Windows and Linux, by its documentation; the rest are not.
        if self.backend == "tensorrt-rtx" or self.platform == host_platform():
            return None
        return f"built for {self.platform}, this is {host_platform()}"

    def _version_reason(self, version: str) -> str | None:
        built, here = _numbers(self.backend_version), _numbers(version)
        if built == here or (self.version_compatible and built[:1] == here[:1] and built < here):
            return None
        return f"built with {self.backend} {self.backend_version}, installed is {version}"

    def _gpu_reason(self, capability: str) -> str | None:
        here = _numbers(capability)
        if self.backend == "tensorrt-rtx":
            fits = capability in self.targets if self.targets else here >= (8, 0)
            built = f"for {', '.join(self.targets) or '8.0 and later'}"
        else:
            fits = capability == self.compute_capability or (
                self.hardware_compatibility == "ampere-plus" and here >= (8, 0)
            )
            built = f"on {self.compute_capability} ({self.gpu})"
        return None if fits else f"built {built}, this GPU has compute capability {capability}"

    def _plugin_reason(self, sha256: str | None) -> str | None:
        if self.plugin is None or self.plugin.sha256 == sha256:
            return None
        found = f"here is {sha256[:12]}" if sha256 else "here is none"
        return f"built with the plugin {self.plugin.name} {self.plugin.sha256[:12]}, {found}"


def _precision(data: dict[str, Any]) -> Precision:
    kept = {type_: (int(built), int(told)) for type_, (built, told) in data.pop("kept").items()}
    return Precision(**data, kept=kept)


def sidecar_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    with replacing(sidecar_path(engine)) as file:
        file.write_text(sidecar.to_json(), encoding="utf-8")


def read_sidecar(engine: Path) -> Sidecar:
    """The facts of an engine file, of which it is made sure that they are of this file.

    Raises:
        EngineMismatch: there is no sidecar, it is damaged, or it belongs to another engine.
        OSError: a file cannot be read.
    """
    path = sidecar_path(engine)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise EngineMismatch(
            f"{engine}: {path.name} is missing, which says where the engine may run; copy both files, or build again: "
            f"proscale-deploy build M.onnx --output {engine.name} --backend tensorrt (or tensorrt-rtx)"
        ) from error
    except UnicodeDecodeError as error:
        raise EngineMismatch(f"{path}: damaged ({error}); build the engine again") from error
    sidecar = Sidecar.from_json(text, str(path))
    if file_sha256(engine) != sidecar.engine_sha256:
        raise EngineMismatch(
            f"{engine}: changed since it was built, or {path.name} is of another engine; copy both files again"
        )
    return sidecar


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def host_platform() -> str:
    """ "linux-x86_64", "linux-aarch64"."""
    return f"{platform.system().lower()}-{platform.machine()}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
