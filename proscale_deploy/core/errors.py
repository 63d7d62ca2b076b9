"""Everything that can go wrong, as one tree. Messages say what was found, what was expected, and what to type next."""

__all__ = [
    "BuildError",
    "CheckpointError",
    "DeployError",
    "DeviceError",
    "EngineMismatch",
    "ExportError",
    "InputError",
    "MissingDependency",
    "OutOfMemory",
    "PluginError",
    "PrecisionError",
    "VerificationFailed",
]


class DeployError(Exception):
    """Base of all errors raised on purpose; the command line prints it as one line and exits with status 1."""


class CheckpointError(DeployError):
    """A YAML configuration or a weights file cannot be read, is not supported, or the two do not fit together."""


class ExportError(DeployError):
    """The model could not be written as ONNX, or the written file is not equal to the model."""


class PrecisionError(DeployError):
    """A reduced-precision file could not be made from the given model and calibration images."""


class BuildError(DeployError):
    """An engine could not be built, or was not built as asked."""


class EngineMismatch(DeployError):
    """An engine file does not belong to this device, library version or plugin."""


class DeviceError(DeployError):
    """There is no GPU, its memory is too small, or CUDA or TensorRT failed on it."""


class OutOfMemory(DeviceError):
    """The GPU's memory is too small for what was asked; what was there before still works."""


class PluginError(DeployError):
    """The TensorRT plugin library is missing, does not load, or is of another version."""


class InputError(DeployError):
    """An image, a video, a model file or an option given by the user cannot be used."""


class VerificationFailed(DeployError):
    """Two stations of the same model disagree by more than the stated tolerance."""


class MissingDependency(DeployError):
    """An optional package is not installed, or does not load; the message holds the pip command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str, problem: str | None = None) -> None:
        state = f"is installed but does not load ({problem})" if problem else "is not installed"
        super().__init__(f"{purpose} needs {package}, which {state}: pip install 'proscale-deploy[{extra}]'")
