"""A file of trained weights -> a state dict with the official names, float32, strictly loaded into a model."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from proscale_deploy.core.errors import CheckpointError
from proscale_deploy.core.file_kind import HEAD, WEIGHTS, looks_like
from proscale_deploy.export.mismatch import describe_mismatch
from proscale_deploy.export.pickles import load_pickle, to_array

__all__ = ["Weights", "load_state_dict", "load_weights"]

_LEGACY_TORCH: Final = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a torch file from before the zip format begins: a pickled magic number."""
_HEAD: Final = "sem_seg_head."
_FLOATS: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_NOT_WEIGHTS: Final = re.compile(r"criterion\..*|pixel_mean|pixel_std|.*num_batches_tracked|.*relative_position_index")
"""Entries of a checkpoint that follow from the configuration or serve training only."""


@dataclass(frozen=True)
class Weights:
    """The weights in one file."""

    path: Path
    tensors: dict[str, Tensor]
    """By official name ("sem_seg_head.predictor.query_feat.weight"); float32 on the CPU, all finite."""
    sha256: str
    """Of the file, hexadecimal."""


def load_state_dict(path: Path) -> Weights:
    """Read a checkpoint: torch's ``.pth``/``.pt``, detectron2's ``.pkl`` or ``.safetensors``, told apart by content.

    The weights may stand under ``model``, under ``state_dict`` or at the top. As in the official loader, criterion
    entries are dropped and old names are brought up to date. Nothing in the file is run.

    Raises:
        CheckpointError: the file cannot be read, holds more than arrays, or holds no trained segmentation model.
    """
    entries = _tensors(path, _read(path))
    tensors = {_current_name(name, entries): tensor for name, tensor in entries.items()}
    if not any(name.startswith(_HEAD) for name in tensors):
        raise CheckpointError(
            f"{path}: no trained segmentation model, it has no {_HEAD}* entry (first: {', '.join([*tensors][:3])}); a "
            "pretrained backbone, as MODEL.WEIGHTS of a YAML names one, is not enough: give the checkpoint that "
            "training wrote, in detectron2 OUTPUT_DIR/model_final.pth"
        )
    tensors = {
        name: _float32(path, name, tensor) for name, tensor in tensors.items() if not _NOT_WEIGHTS.fullmatch(name)
    }
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"{path}: NaN or infinite weights in {len(broken)} of {len(tensors)} entries, first {broken[0]}; training "
            "diverged, or the file is damaged: give an earlier checkpoint"
        )
    return Weights(path, tensors, _sha256(path))


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copy weights into a model, every entry of one into the other.

    Raises:
        CheckpointError: entries are missing, left over or of another shape; the message sums up all of them, and names
            the YAML keys that would explain them.
    """
    expected = {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if not _NOT_WEIGHTS.fullmatch(name)
    }
    mismatch = describe_mismatch({name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}, expected)
    if mismatch:
        raise CheckpointError(f"{weights.path}: the weights do not fit the YAML\n{mismatch}")
    # Not strict: what follows from the configuration is the model's own.
    model.load_state_dict(weights.tensors, strict=False)


def _read(path: Path) -> Any:
    """The object in the file, as its format holds it."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a file of weights") from error
    if head.startswith(b"PK\x03\x04") or _LEGACY_TORCH in head:
        return _read_torch(path, mmap=head.startswith(b"PK"))
    if head[8:9] == b"{":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: damaged or truncated .safetensors file ({error})") from error
    if head.startswith((b"\x80", b"(dp")):
        return load_pickle(path)
    raise CheckpointError(
        f"{path}: {looks_like(path, head, WEIGHTS)}; expected trained weights: .pth or .pt (torch.save), .pkl "
        "(detectron2) or .safetensors"
    )


def _read_torch(path: Path, *, mmap: bool) -> Any:
    try:
        # Mapped, the optimizer's state (twice the size of the weights) is never read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UnpicklingError as error:
        # The reason stands in the middle of torch's advice to switch its safety off.
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip()
        if refused := re.search(r"GLOBAL ([\w.]+)|(Unsupported operand \d+)", reason):
            what = f"it wants to load {refused[1]}" if refused[1] else f"torch's safe reader says: {refused[2]}"
            raise CheckpointError(
                f"{path}: refused, {what}; only tensors and plain containers, as torch.save writes them, are admitted, "
                "and nothing was run. Only if you trust the file, as this runs code in it, write its weights alone: "
                f"python -c \"import torch; m = torch.load('{path}', 'cpu', weights_only=False); "
                "m = m.get('model', m) if isinstance(m, dict) else m; "
                f"torch.save(m.state_dict() if hasattr(m, 'state_dict') else m, '{path.stem}_weights.pth')\""
            ) from error
        raise CheckpointError(f"{path}: refused or damaged ({_first_line(reason)})") from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and more on damaged files.
        raise CheckpointError(
            f"{path}: damaged, truncated, or no torch checkpoint ({_first_line(str(error) or type(error).__name__)})"
        ) from error


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _tensors(path: Path, data: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, wherever it stands in ``data``, without the prefix of distributed training."""
    for key in ("model", "state_dict"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary of weights, found a {type(data).__name__}")
    tensors = {}
    for name, value in data.items():
        tensor = value if isinstance(value, Tensor) else _from_pickle(path, name, value)
        if tensor is not None:
            tensors[str(name)] = tensor
    if not tensors:
        keys = ", ".join(str(key) for key in [*data][:5]) or "nothing"
        raise CheckpointError(f"{path}: no weights under 'model', 'state_dict' or at the top; found there: {keys}")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _from_pickle(path: Path, name: Any, value: Any) -> Tensor | None:
    try:
        array = to_array(value)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: entry {name} cannot be read: {error}") from error
    # A copy in native byte order: torch shares memory, and takes neither read-only nor foreign-order arrays.
    return None if array is None else torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def _float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in _FLOATS or tensor.layout != torch.strided or tensor.is_meta:
        kind = "without content" if tensor.is_meta else f"{tensor.layout} {tensor.dtype}".replace("torch.", "")
        raise CheckpointError(
            f"{path}: entry {name} is {kind}, expected dense floating-point numbers; a quantised or sparse checkpoint "
            "cannot be used: give the one that training wrote"
        )
    return tensor.float()


def _current_name(name: str, entries: Mapping[str, Tensor]) -> str:
    """What the official modules rename in ``_load_from_state_dict`` when they load a file of an older version.

    MaskFormerHead had the pixel decoder's entries without its prefix; MultiScaleMaskedTransformerDecoder called the
    learned queries ``static_query``.
    """
    predictor, pixel_decoder = f"{_HEAD}predictor.", f"{_HEAD}pixel_decoder."
    if name.startswith(predictor):
        return name.replace("static_query", "query_feat")
    if name.startswith(_HEAD) and not any(other.startswith(pixel_decoder) for other in entries):
        return name.replace(_HEAD, pixel_decoder, 1)
    return name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
