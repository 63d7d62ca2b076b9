"""A stand-in for the module ``tensorrt`` of the version in FAKE_TENSORRT: it has the recorded names and no others.

It builds nothing. What it was told goes to the file FAKE_TENSORRT_CALLS, one JSON line a call; FAKE_TENSORRT_MOOD says
what is to go wrong. Names and arguments are those of the bindings' sources (tensorrt_api.json), and so are the two ways
in which the inspector writes types.
"""

import enum
import inspect
import json
import os
import signal
import time
from typing import Any

import onnx

from support import tensorrt_api

__version__ = os.environ["FAKE_TENSORRT"]
MOOD = os.environ.get("FAKE_TENSORRT_MOOD", "")
API = tensorrt_api.load(".".join(__version__.split(".")[: 2 if __version__.startswith("11") else 3]))
LIBRARIES: list[str] = []


def call(name: str, *arguments: Any) -> None:
    with open(os.environ["FAKE_TENSORRT_CALLS"], "a") as file:
        file.write(json.dumps([name, *arguments]) + "\n")


def recorded(cls: type) -> type:
    """Take from a class what the version has not, and refuse what no version calls so."""
    members = API[cls.__name__]
    for name, member in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if name not in members:
            delattr(cls, name)
        elif inspect.isfunction(member):
            arguments = list(inspect.signature(member).parameters)[1:]
            assert any(overload[: len(arguments)] == arguments for overload in members[name] or []), (cls, name)

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in members:
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")  # as pybind11
        object.__setattr__(self, name, value)

    if not issubclass(cls, ILogger | IProgressMonitor):
        cls.__setattr__ = set_attribute  # type: ignore[assignment]
    return cls


def recorded_enum(name: str) -> Any:
    return enum.IntEnum(name, {member: index for index, member in enumerate(API[name])})


BuilderFlag = recorded_enum("BuilderFlag")
HardwareCompatibilityLevel = recorded_enum("HardwareCompatibilityLevel")
LayerInformationFormat = recorded_enum("LayerInformationFormat")
MemoryPoolType = recorded_enum("MemoryPoolType")
NetworkDefinitionCreationFlag = recorded_enum("NetworkDefinitionCreationFlag")
ProfilingVerbosity = recorded_enum("ProfilingVerbosity")
ErrorCode = recorded_enum("ErrorCode")


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Any, msg: str) -> None: ...


class IProgressMonitor: ...


@recorded
class IOptimizationProfile:
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        call("set_shape", input, min, opt, max)


@recorded
class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return b"measured"


@recorded
class IBuilderConfig:
    def __init__(self) -> None:
        self._cache = ITimingCache(b"")

    def clear_flag(self, flag: Any) -> None:
        call("clear_flag", flag.name)

    def set_flag(self, flag: Any) -> None:
        call("set_flag", flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        call("set_memory_pool_limit", pool.name, pool_size)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        call("set_timing_cache", cache._content.decode(errors="replace"), ignore_mismatch)
        self._cache = cache
        return cache._content in (b"", b"measured")

    def get_timing_cache(self) -> ITimingCache:
        return self._cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        return 0


@recorded
class ITensor:
    def __init__(self, value: Any) -> None:
        self.name = value.name
        self.shape = [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]


@recorded
class INetworkDefinition:
    def __init__(self) -> None:
        self._graph: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self._graph.graph.input)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._graph.graph.input[index])


@recorded
class ParserError:
    def code(self) -> Any:
        return ErrorCode["UNSUPPORTED_NODE"]

    def desc(self) -> str:
        return "Assertion failed: creator && Plugin not found, are the plugin name, version correct?\n"

    def node_name(self) -> str:
        return "/pixel_decoder/transformer/encoder/layers.0/self_attn/ProScaleMSDeformAttn"

    def node_operator(self) -> str:
        return "ProScaleMSDeformAttn"


@recorded
class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        graph = onnx.ModelProto.FromString(model)
        call("parse", [function.name for function in graph.functions], sorted({n.domain for n in graph.graph.node}))
        self._network._graph = graph
        return MOOD != "parser refuses"

    @property
    def num_errors(self) -> int:
        return 1

    def get_error(self, index: int) -> ParserError:
        return ParserError()


@recorded
class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        if MOOD == "no GPU":
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int) -> INetworkDefinition:
        call("create_network", [flag.name for flag in NetworkDefinitionCreationFlag if flags >> flag & 1])
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: Any) -> bytes | None:
        settings = {
            name: value for name, value in vars(config).items() if name[0] != "_" and name != "progress_monitor"
        }
        call("build", {name: getattr(value, "name", value) for name, value in settings.items()})
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        assert monitor.step_complete("Building engine", 0)
        if MOOD == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if MOOD == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if MOOD == "out of memory":
            self._logger.log(ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 12 bytes.)")
            return None
        while MOOD == "hangs":
            time.sleep(0.15)
            if not monitor.step_complete("Building engine", 1):
                call("cancelled")
                return None
        monitor.phase_finish("Building engine")
        return network._graph.SerializeToString()


@recorded
class EngineInspector:
    def __init__(self, engine: bytes) -> None:
        self._graph = onnx.ModelProto.FromString(engine)

    def get_engine_information(self, format: Any) -> str:
        assert format is LayerInformationFormat.JSON
        type_ = "FP32" if MOOD == "builds FP32" else "FP16"
        if __version__.startswith("11"):
            tensor = {"Name": "x", "Datatype": {"FP32": "Float", "FP16": "Half"}[type_], "Format": "Row major linear"}
        else:
            tensor = {"Name": "x", "Format/Datatype": f"Channel major {type_} format where channel % 8 == 0"}
        kinds = {"Conv": "CaskConvolution", "MatMul": "gemm", "ProScaleMSDeformAttn": "PluginV3"}
        layers = [
            {
                "Name": f"{node.name}_myl0_1",
                "LayerType": kinds.get(node.op_type, "kgen"),
                "Inputs": [tensor],
                "Outputs": [tensor],
                "Metadata": f"[ONNX Layer: {node.name}]\x1f[ONNX Layer: other | an attribute]",
            }
            for node in self._graph.graph.node
        ]
        return json.dumps({"Layers": layers, "Bindings": []})


@recorded
class ICudaEngine:
    def __init__(self, engine: bytes) -> None:
        self._engine = engine

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self._engine)


@recorded
class Runtime:
    def __init__(self, logger: ILogger) -> None: ...

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine:
        return ICudaEngine(serialized_engine)


@recorded
class IPluginRegistry:
    def load_library(self, plugin_path: str) -> object | None:
        call("load_library", plugin_path)
        LIBRARIES.append(plugin_path)
        return None if MOOD == "library refused" else object()

    def get_creator(self, type: str, version: str, plugin_namespace: str) -> object | None:
        known = (type, version, plugin_namespace) == ("ProScaleMSDeformAttn", "1", "")
        return object() if LIBRARIES and known and MOOD != "no creator" else None


def get_plugin_registry() -> IPluginRegistry:
    return IPluginRegistry()


assert "get_plugin_registry" in API["module"]
