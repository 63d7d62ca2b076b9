"""Reading and writing still images, with the pixel values that detectron2 would read."""

import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.files import replacing

__all__ = ["IMAGE_SUFFIXES", "read_image", "write_image"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})
"""What a folder is searched for, lower case."""

_PNG_COMPRESSION = 3
"""zlib level: a third of the time of the default for a few percent of size."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read one image as (H, W, 3) uint8 BGR.

    As detectron2's ``read_image`` does: decoded by Pillow, turned as the EXIF orientation says, grey repeated over the
    three channels, an alpha channel dropped (the hidden colour stays), the first frame of an animation. 16-bit grey is
    scaled to 8 bit, 65535 becoming 255; of 16-bit colour Pillow keeps the high byte.

    Raises:
        InputError: the file is missing, empty, not an image, cut off, or has no pixels.
    """
    try:
        # Pillow warns from 89 megapixels on and refuses from 179 on; the first is not worth a line, the second is.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                rgb = _to_rgb(ImageOps.exif_transpose(file))
    except FileNotFoundError:
        raise InputError(f"no such image: {path}") from None
    except UnidentifiedImageError:
        found = "an empty file" if path.stat().st_size == 0 else "no image in a format that Pillow knows"
        raise InputError(f"cannot read {path}: {found}") from None
    # Pillow's decoders raise several kinds of errors on damaged data, SyntaxError among them.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if rgb.size == 0:
        raise InputError(f"cannot read {path}: the image has no pixels ({rgb.shape[1]}x{rgb.shape[0]})")
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    # Which of the two modes a 16-bit grey file opens in depends on the version of Pillow.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = np.asarray(image, np.uint32)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def write_image(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write (H, W) or (H, W, 3) BGR in the format of the suffix (16 bit: PNG only); the file is complete or not there.

    Raises:
        InputError: no image format has this suffix.
        OSError: the disk is full, or the folder is not writable.
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION] if path.suffix.lower() == ".png" else []
    try:
        _, data = cv2.imencode(path.suffix, image, options)
    except cv2.error as error:
        raise InputError(f"cannot write {path}: {error.err}; use .png or .jpg") from error
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
