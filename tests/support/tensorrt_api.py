"""The names in TensorRT's Python bindings that the builder and the session rely on, by version, read from C++ sources.

Recorded in tensorrt_api.json (names only) from a clone of NVIDIA/TensorRT::

    python tests/support/tensorrt_api.py CLONE v10.3.0 v10.13.3 v11.1
"""

import json
import re
import subprocess
import sys
from pathlib import Path

RECORD = Path(__file__).with_name("tensorrt_api.json")

SOURCES = (
    "src/infer/pyCore.cpp",
    "src/infer/pyGraph.cpp",
    "src/infer/pyPlugin.cpp",
    "src/infer/pyFoundationalTypes.cpp",
    "src/parsers/pyOnnx.cpp",
)
KEPT = {
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IPluginRegistry",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "Severity",
    "TensorIOMode",
    "ErrorCode",
}

Api = dict[str, dict[str, list[list[str]] | None]]
"""Class or enum -> name -> names of arguments, one list for each overload; None: a property or a value."""


def load(version: str) -> Api:
    record: dict[str, Api] = json.loads(RECORD.read_text())
    return record[version]


def read(clone: Path, tag: str) -> Api:
    api: Api = {name: {} for name in KEPT} | {"module": {}}
    for source in SOURCES:
        command = ["git", "-C", str(clone), "show", f"{tag}:python/{source}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        text = re.sub(r"//.*", "", text)
        # From one binding of a class, an enum or a function of the module to the next.
        for part in re.split(r"(?=py::(?:class_|enum_)<|\bm\.def\(|\bbaseLoggerBinding\.def)", text):
            if function := re.match(r'm\.def\(\s*"(\w+)"', part):
                api["module"].setdefault(function[1], [])
                continue
            owner = re.match(r'py::\w+<[^;]*?[({]\s*(?:m|baseLoggerBinding)\s*,\s*"(\w+)"', part, re.S)
            name = "ILogger" if part.startswith("baseLoggerBinding.def") else owner and owner[1]
            if name in KEPT:
                _read_members(part, api[name])
    return {name: dict(sorted(members.items())) for name, members in sorted(api.items())}


def _read_members(part: str, members: dict[str, list[list[str]] | None]) -> None:
    pieces = re.split(r"\.(?=def|value)", part)
    for piece in pieces:
        named = re.match(r'(def|def_property|def_property_readonly|def_static|value)\(\s*"(\w+)"', piece)
        if named is None or named[2].startswith("__"):
            continue
        if named[1] in ("def", "def_static"):
            overloads = members.setdefault(named[2], [])
            assert overloads is not None
            overloads.append(re.findall(r'"(\w+)"_a', piece))
        else:
            members[named[2]] = None


if __name__ == "__main__":
    clone, tags = Path(sys.argv[1]), sys.argv[2:]
    record = {tag.removeprefix("v"): read(clone, tag) for tag in tags}
    lines = []
    for version, api in record.items():
        classes = [f"  {json.dumps(name)}: {json.dumps(members)}" for name, members in api.items()]
        lines.append(f" {json.dumps(version)}: {{\n" + ",\n".join(classes) + "\n }")
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
