"""Reading what data sets consist of: JSON, label maps, panoptic maps, and where their images lie."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from proscale_deploy.core.errors import InputError
from proscale_deploy.export.datasets.dataset import Picture

__all__ = ["pair_images", "read_id_map", "read_json", "read_label_map"]


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """An annotation file, an object that has ``keys``, each of them a list.

    Raises:
        InputError: it is not one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected an annotation file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); was it copied completely?") from error
    missing = [key for key in keys if not isinstance(data, dict) or not isinstance(data.get(key), list)]
    if missing:
        found = ", ".join(list(data)[:8]) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise InputError(f"{path}: expected an object with the lists {', '.join(keys)}; found {found}")
    return dict(data)


def read_label_map(path: Path) -> NDArray[np.int32]:
    """(H, W): the numbers in a PNG of one channel, 8 or 16 bit; those of a palette are indices, not colours.

    Raises:
        InputError: it cannot be read, or has several channels.
    """
    values = _read(path)
    if values.ndim != 2:
        raise InputError(f"{path}: expected one channel of class numbers, found {values.shape[2]} (a map of colours?)")
    return values.astype(np.int32)


def read_id_map(path: Path) -> NDArray[np.int32]:
    """(H, W): R + 256 G + 65536 B of a PNG, COCO's panoptic format.

    Raises:
        InputError: it cannot be read, or is not RGB.
    """
    values = _read(path)
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8:
        raise InputError(f"{path}: expected an 8-bit RGB PNG of segment ids, found {values.shape} {values.dtype}")
    ids = values.astype(np.int32)
    return ids[:, :, 0] + 256 * ids[:, :, 1] + 65536 * ids[:, :, 2]


def pair_images(folder: Path, wanted: Mapping[str, Sequence[str]]) -> tuple[Picture, ...]:
    """Find the image of every annotation.

    Args:
        folder: the images, in it or anywhere below it.
        wanted: name of the picture -> file names to try, first as paths below ``folder``, then without suffix.

    Raises:
        InputError: an image is missing, or there are several of one name.
    """
    if not folder.is_dir():
        raise InputError(
            f"--images {folder}: expected a folder of images, found {'a file' if folder.exists() else 'none'}"
        )
    below: dict[str, list[Path]] | None = None
    pictures, missing = [], []
    for name, candidates in wanted.items():
        image = next((folder / candidate for candidate in candidates if (folder / candidate).is_file()), None)
        if image is None:
            below = _by_stem(folder) if below is None else below
            found = next((below[stem] for stem in map(_stem, map(Path, candidates)) if stem in below), [])
            if len(found) > 1:
                raise InputError(f"--images {folder}: {name} may be {found[0]} or {found[1]}; give the folder of one")
            image = found[0] if found else None
        if image is None:
            missing.append(candidates[0])
        else:
            pictures.append(Picture(name, image))
    if missing:
        raise InputError(
            f"--images {folder}: {len(missing)} of {len(wanted)} annotated images are not in it, the first is "
            f"{missing[0]}; give the folder that belongs to the annotations"
        )
    return tuple(pictures)


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    suffixes = Image.registered_extensions()
    below: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file():
            below.setdefault(_stem(path), []).append(path)
    return below


def _stem(path: Path) -> str:
    return path.stem.removesuffix("_leftImg8bit")  # Cityscapes


def _read(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError:
        raise InputError(f"no such annotation: {path}") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: no image in a format that Pillow knows") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # of damaged data
        raise InputError(f"{path}: cannot be read ({error}); was it copied completely?") from error
