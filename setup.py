"""Packaging: the folders export/ and runtime/ are installed inside the package ``proscale_deploy``.

``pip install .``, ``pip install -e .`` and running from the checkout give the same import names. An editable install
needs the [build-system] table of pyproject.toml; see ``proscale_deploy/__init__.py`` for the checkout.
"""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "proscale_deploy/__init__.py").read_text(encoding="utf-8"), re.M)
assert VERSION is not None

ROOMS = {
    "proscale_deploy": "proscale_deploy",
    "proscale_deploy.core": "proscale_deploy/core",
    "proscale_deploy.cli": "proscale_deploy/cli",
    "proscale_deploy.export": "export",
    "proscale_deploy.export.datasets": "export/datasets",
    "proscale_deploy.export.model": "export/model",
    "proscale_deploy.runtime": "runtime",
    "proscale_deploy.runtime.compiled": "runtime/compiled",
    "proscale_deploy.runtime.gpu": "runtime/gpu",
    "proscale_deploy.runtime.page": "runtime/page",
    "proscale_deploy.runtime.streams": "runtime/streams",
    "proscale_deploy.plugins": "plugins",
}
# No Python: what `proscale-deploy plugin build` compiles.
PLUGIN_SOURCES = ["CMakeLists.txt", "cmake/*", "include/proscale/*.h", "src/*", "host/*"]

ONNX = "onnx>=1.17,<2"
CPU = ["onnxruntime>=1.20,<2", ONNX]
EXPORT = [*CPU, "torch>=2.6,<3", "onnxsim>=0.4.36,<1", "PyYAML>=6,<7", "safetensors>=0.4,<1"]
# Builds engines for RTX GPUs on any machine, without a GPU; pycuda, which needs the CUDA toolkit, is for running them.
TENSORRT_RTX = "tensorrt-rtx-cu13>=1.2,<2"
RTX_PLATFORM = "sys_platform == 'linux' and platform_machine == 'x86_64'"
RTX_BUILD = [ONNX, TENSORRT_RTX]
SAMPLES = [*EXPORT, "scipy>=1.10,<2", "pycocotools>=2.0.8,<3"]

setup(
    name="proscale-deploy",
    version=VERSION[1],
    description="Deploy PRO-SCALE and Mask2Former segmentation models: ONNX, TensorRT engines, exact runtime",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=list(ROOMS),
    package_dir=ROOMS,
    package_data={
        "proscale_deploy": ["py.typed"],
        "proscale_deploy.export": ["data/*.json"],
        "proscale_deploy.plugins": PLUGIN_SOURCES,
        "proscale_deploy.runtime.page": ["*.html", "*.css", "*.js", "*.svg"],
    },
    install_requires=["numpy>=1.24,<3", "opencv-python>=4.8,<6", "Pillow>=10", "click>=8.1,<9"],
    extras_require={
        "export": EXPORT,
        "cpu": CPU,
        "coco": ["pycocotools>=2.0.8,<3"],
        "tensorrt": ["tensorrt>=10.3,<12", ONNX, "pycuda>=2024.1"],
        "rtx-build": RTX_BUILD,
        "rtx": [*RTX_BUILD, "pycuda>=2024.1"],
        "samples": SAMPLES,
        "dev": [
            *SAMPLES,
            f"{TENSORRT_RTX}; {RTX_PLATFORM}",
            "pytest>=8",
            "pytest-xdist>=3.7,<4",
            "ruff>=0.9",
            "mypy>=1.14",
            "types-PyYAML>=6",
            "cmake>=3.22",
        ],
    },
    entry_points={"console_scripts": ["proscale-deploy = proscale_deploy.cli:program"]},
)
