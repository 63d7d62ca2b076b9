"""What the tests of this folder need: a CUDA GPU and the compiled library. README.md says how to run them all."""

from pathlib import Path

import pytest
import torch

from proscale_deploy.core import plugin_library
from proscale_deploy.core.native import Library


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU, and a PyTorch built for CUDA")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def library_path(device: torch.device) -> Path:
    found = plugin_library.plugins()
    if not found:
        pytest.skip(
            f"needs {plugin_library.PLUGIN}: proscale-deploy plugin build, or its place as {plugin_library.OVERRIDE}"
        )
    return found[-1]


@pytest.fixture(scope="session")
def library(library_path: Path) -> Library:
    return Library(library_path)
