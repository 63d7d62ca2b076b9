"""What the builder and the session do alike with TensorRT and TensorRT-RTX: import the module, register the plugin."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import MissingDependency, PluginError
from proscale_deploy.core.operator import OP_TYPE, VERSION
from proscale_deploy.core.sidecar import BackendName

__all__ = ["TITLES", "import_trt", "load_plugin"]

TITLES: Final[Mapping[BackendName, str]] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

_MODULES: Final = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_loaded: dict[str, str] = {}
"""Module -> sha256 of the plugin library in its registry, which is the process's."""


def import_trt(backend: BackendName, *, extra: str, purpose: str) -> Any:
    """The Python module of a backend; ``extra`` of this project brings it, ``purpose`` says what for.

    Raises:
        MissingDependency: it is not installed, or does not load.
    """
    module = _MODULES[backend]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependency(module, extra, purpose) from error
    except (ImportError, OSError, RuntimeError) as error:  # a shared library is missing or of another version
        raise MissingDependency(module, extra, purpose, str(error)) from error


def load_plugin(trt: Any, library: Path) -> None:
    """Register the plugin library with TensorRT, for the parser, the builder and the runtime of this process.

    Raises:
        PluginError: it does not load, brings no plugin of our name and version, or another one was loaded before.
    """
    registry, digest = trt.get_plugin_registry(), plugin_library.sha256(library)
    # A library that is registered is not registered again: TensorRT takes that for a failure.
    if loaded := _loaded.get(trt.__name__):
        if loaded != digest:
            raise PluginError(f"{library}: this process has loaded another plugin library before; start it again")
        return
    if registry.load_library(str(library)) is None:
        raise PluginError(
            f"{library}: TensorRT {trt.__version__} does not load it; build it again: proscale-deploy plugin build"
        )
    if registry.get_creator(OP_TYPE, str(VERSION), "") is None:
        raise PluginError(
            f"{library}: it registers no plugin {OP_TYPE} of version {VERSION}; build it again: "
            "proscale-deploy plugin build"
        )
    _loaded[trt.__name__] = digest
