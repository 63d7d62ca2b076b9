"""A stand-in for the module ``tensorrt`` of the version in FAKE_TENSORRT: it has the recorded names and no others.

It builds nothing: its engines are ONNX files, which ONNX Runtime runs on what the stand-in of pycuda calls the device.
What it was told goes to the file FAKE_TENSORRT_CALLS, one JSON line a call; FAKE_TENSORRT_MOOD says what is to go
wrong. Names and arguments are those of the bindings' sources (tensorrt_api.json), and so are the two ways in which
the inspector writes types.
"""

import ctypes
import enum
import inspect
import json
import os
import signal
import time
from typing import Any

import numpy as np
import onnx
import onnx.helper

from proscale_deploy.core.operator import gather_function, is_operator
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


PROFILE = "profile"
"""Key in the metadata of an engine: the three shapes of its input."""


FLAGS = "flags"
"""Likewise: the builder's flags."""


def set_profile(engine: onnx.ModelProto, shapes: Any) -> None:
    onnx.helper.set_model_props(engine, {PROFILE: json.dumps(shapes)})


def _property(engine: onnx.ModelProto, key: str) -> str:
    return next((entry.value for entry in engine.metadata_props if entry.key == key), "")


BuilderFlag = recorded_enum("BuilderFlag")
DataType = recorded_enum("DataType")
HardwareCompatibilityLevel = recorded_enum("HardwareCompatibilityLevel")
LayerInformationFormat = recorded_enum("LayerInformationFormat")
MemoryPoolType = recorded_enum("MemoryPoolType")
NetworkDefinitionCreationFlag = recorded_enum("NetworkDefinitionCreationFlag")
ProfilingVerbosity = recorded_enum("ProfilingVerbosity")
TensorIOMode = recorded_enum("TensorIOMode")
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
        self._shapes = (min, opt, max)


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
        self._flags: list[str] = []

    def clear_flag(self, flag: Any) -> None:
        call("clear_flag", flag.name)

    def set_flag(self, flag: Any) -> None:
        call("set_flag", flag.name)
        self._flags.append(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        call("set_memory_pool_limit", pool.name, pool_size)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        return None if serialized_timing_cache == b"damaged" else ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        call("set_timing_cache", cache._content.decode(errors="replace"), ignore_mismatch)
        self._cache = cache
        return cache._content in (b"", b"measured")

    def get_timing_cache(self) -> ITimingCache:
        return self._cache

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._shapes = profile._shapes
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
        engine = onnx.ModelProto()
        engine.CopyFrom(network._graph)
        set_profile(engine, config._shapes)
        engine.metadata_props.add(key=FLAGS, value=" ".join(config._flags))
        return engine.SerializeToString()


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
class IExecutionContext:
    def __init__(self, engine: "ICudaEngine") -> None:
        import onnxruntime

        model = onnx.ModelProto()
        model.CopyFrom(engine._model)
        if any(map(is_operator, model.graph.node)) and not model.functions:
            model.functions.append(gather_function())
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        fits = all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))
        if fits:
            self._shape = shape
            self._has_run = False
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._engine.get_tensor_shape(name)
        return (self._shape[0], *shape[1:])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        import pycuda.driver

        if MOOD == "refuses to run":
            self._engine._logger.log(ILogger.Severity.ERROR, "IExecutionContext::enqueueV3: Error Code 3: API Usage")
            return False
        stream = pycuda.driver.STREAMS[stream_handle]
        if stream.captured is not None and (MOOD == "refuses capture" or not self._has_run):
            self._engine._logger.log(ILogger.Severity.ERROR, "operation not permitted when stream is capturing")
            return False
        call("execute", self._shape)
        stream.add(self._run)
        self._has_run = True
        return True

    def _run(self) -> None:
        (name,) = (value.name for value in self._engine._model.graph.input)
        outputs = [value.name for value in self._engine._model.graph.output]
        results = self._session.run(outputs, {name: self._at(name)})
        for output, result in zip(outputs, results, strict=True):
            self._at(output)[...] = -result if MOOD == "computes rubbish" else result

    def _at(self, name: str) -> np.ndarray:
        dtype = np.dtype({"FLOAT": np.float32, "HALF": np.float16}[self._engine.get_tensor_dtype(name).name])
        shape = self.get_tensor_shape(name)
        memory = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


@recorded
class ICudaEngine:
    def __init__(self, engine: bytes, logger: ILogger) -> None:
        self._engine, self._logger = engine, logger
        self._model = onnx.ModelProto.FromString(engine)
        graph = self._model.graph
        self._tensors = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output)}

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self._engine)

    def create_execution_context(self) -> IExecutionContext | None:
        if MOOD == "no memory for a context":
            self._logger.log(ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 50000000 bytes.)")
            return None
        return IExecutionContext(self)

    @property
    def device_memory_size_v2(self) -> int:
        return 50_000_000

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode["INPUT" if name in {value.name for value in self._model.graph.input} else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[{1: "FLOAT", 7: "INT64", 10: "HALF"}[self._tensors[name].elem_type]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(dim.dim_value or -1 for dim in self._tensors[name].shape.dim)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(shape) for shape in json.loads(_property(self._model, PROFILE))]


@recorded
class Runtime:
    def __init__(self, logger: ILogger) -> None:
        if MOOD == "no runtime":
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        trusted = bool(vars(self).get("engine_host_code_allowed"))
        call("deserialize", trusted)
        if MOOD == "damaged":
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTag failed.")
            return None
        flags = _property(onnx.ModelProto.FromString(serialized_engine), FLAGS)
        if "VERSION_COMPATIBLE" in flags and not trusted:
            self._logger.log(ILogger.Severity.ERROR, "engine with host code, which is not allowed")
            return None
        return ICudaEngine(serialized_engine, self._logger)


@recorded
class IPluginRegistry:
    def load_library(self, plugin_path: str) -> object | None:
        call("load_library", plugin_path)
        if MOOD == "library refused" or LIBRARIES:  # plugins that are registered are not registered again
            return None
        LIBRARIES.append(plugin_path)
        return object()

    def get_creator(self, type: str, version: str, plugin_namespace: str) -> object | None:
        known = (type, version, plugin_namespace) == ("ProScaleMSDeformAttn", "1", "")
        return object() if LIBRARIES and known and MOOD != "no creator" else None


def get_plugin_registry() -> IPluginRegistry:
    return IPluginRegistry()


assert "get_plugin_registry" in API["module"]
