"""Loads a plugin library into TensorRT-RTX's registry and says what came of it, as JSON.

A process of its own: the registry and its logger are there once per process, and a broken plugin ends it.

    python -m support.plugin_registry LIBRARY
"""

import ctypes
import json
import os
import sys
from typing import Any

import numpy as np
import tensorrt_rtx as trt


class Log(trt.ILogger):
    """Keeps the errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def field(name: str, *values: float, dtype: type = np.int32) -> trt.PluginField:
    types = {
        np.int32: trt.PluginFieldType.INT32,
        np.int64: trt.PluginFieldType.INT64,
        np.float32: trt.PluginFieldType.FLOAT32,
    }
    return trt.PluginField(name, np.array(values, dtype), types[dtype])


HEADS, POINTS, LEVELS = field("heads", 8), field("points", 4), field("levels", 100, 168, 50, 84)
CASES = {
    "int32": [HEADS, POINTS, LEVELS],
    "int64": [field("heads", 8, dtype=np.int64), field("points", 4, dtype=np.int64), LEVELS],
    "missing": [HEADS, POINTS],
    "unknown": [HEADS, POINTS, LEVELS, field("groups", 1)],
    "twice": [HEADS, HEADS, POINTS, LEVELS],
    "float": [field("heads", 8.0, dtype=np.float32), POINTS, LEVELS],
    "odd": [HEADS, POINTS, field("levels", 100, 168, 50)],
    "range": [HEADS, field("points", 9), LEVELS],
}
"""What to create a plugin from."""


def create(creator: Any, fields: list[trt.PluginField], phase: trt.TensorRTPhase, log: Log) -> dict[str, Any]:
    log.errors.clear()
    plugin = creator.create_plugin("a node", trt.PluginFieldCollection(fields), phase)
    if plugin is None:
        return {"created": False, "errors": log.errors.copy()}
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    kinds = [
        plugin.get_capability_interface(kind).interface_info.kind
        for kind in (trt.PluginCapabilityType.BUILD, trt.PluginCapabilityType.RUNTIME)
    ]
    names = (core.plugin_name, core.plugin_version, core.plugin_namespace)
    return {"created": True, "errors": log.errors.copy(), "names": names, "kinds": kinds}


def main(library: str) -> None:
    ctypes.CDLL(library, mode=os.RTLD_NOW)  # before TensorRT is there: needs no symbol of it
    log = Log()
    builder = trt.Builder(log)  # registers the logger
    registry = builder.get_plugin_registry()
    before = [creator.name for creator in registry.all_creators]
    handle = registry.load_library(library)
    added = [creator.name for creator in registry.all_creators if creator.name not in before]
    creator = registry.get_creator("ProScaleMSDeformAttn", "1", "")
    result = {
        "added": added,
        "fields": [one.name for one in creator.field_names],
        "cases": {
            f"{name} {phase.name}": create(creator, fields, phase, log)
            for name, fields in CASES.items()
            for phase in (trt.TensorRTPhase.BUILD, trt.TensorRTPhase.RUNTIME)
        },
    }
    del creator
    registry.deregister_library(handle)
    result["left"] = [creator.name for creator in registry.all_creators if creator.name not in before]
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
