"""Deploy trained PRO-SCALE and Mask2Former segmentation models: export, build, run, verify.

The rooms are :mod:`proscale_deploy.export` (build machine: torch, onnx) and :mod:`proscale_deploy.runtime`
(target machine: neither). Importing this package loads none of torch, onnx, tensorrt, pycuda or cv2.
"""

from pathlib import Path

__all__ = ["__version__"]

__version__ = "0.1.0"

# In a checkout the rooms lie beside this folder (setup.py maps them in for an installed copy). Without this line a
# checkout on sys.path would shadow an installed package and hide its rooms.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.py").is_file() and (_checkout / "export" / "__init__.py").is_file():
    __path__.append(str(_checkout))
