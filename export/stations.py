"""A trained checkpoint as a station beside the exported files: PyTorch behind the calls of a session."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import RawOutput, Size
from proscale_deploy.export.checkpoint import load_state_dict, load_weights
from proscale_deploy.export.classes import classes_for
from proscale_deploy.export.config import load_config
from proscale_deploy.export.model import build_model
from proscale_deploy.export.to_onnx import make_manifest, round_up_size

__all__ = ["TorchSession"]


class TorchSession:
    """YAML and weights, run by PyTorch in FP32 on the CPU; used like ``proscale_deploy.runtime.session.Session``.

    Args:
        config: the YAML that the model was trained with.
        weights: its .pth, .pkl or .safetensors.
        class_file: as for ``export --classes``.
        size: of the input; rounded up as at export; by default the YAML's test size.

    Raises:
        CheckpointError: the YAML or the weights cannot be used.
        InputError: the class file or the size cannot be used.
    """

    name = "PyTorch CPU"

    def __init__(self, config: Path, weights: Path, class_file: Path | None = None, size: Size | None = None) -> None:
        settings = load_config(config)
        classes = classes_for(settings.dataset, class_file, settings.model.num_classes)
        model = build_model(settings.model)
        loaded = load_state_dict(weights)
        load_weights(model, loaded)
        wanted = round_up_size(size or (settings.input.height, settings.input.width), settings.input.size_divisibility)
        self.manifest: Manifest = make_manifest(settings, classes, wanted, loaded.sha256)
        self._model: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = model.eval()

    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        """``images`` (B, 3, H, W) float32, normalised and padded to the manifest's input size -> B outputs.

        Raises:
            InputError: the images are of another shape or type, or the session is closed.
        """
        if self._model is None:
            raise InputError("the session is closed; open the model again")
        spec = self.manifest.input
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != (3, spec.height, spec.width):
            raise InputError(
                f"expected images (batch, 3, {spec.height}, {spec.width}) float32, found {images.shape} {images.dtype}"
            )
        with torch.inference_mode():
            classes, masks = self._model(torch.from_numpy(images))
        return [RawOutput(c.numpy(), m.numpy()) for c, m in zip(classes, masks, strict=True)]

    def close(self) -> None:
        """Free the network; calling twice does no harm."""
        self._model = None

    def __enter__(self) -> "TorchSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
