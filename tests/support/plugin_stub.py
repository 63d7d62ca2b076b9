"""A plugin library for tests that never run it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from proscale_deploy import __version__


def compile_plugin_stub(folder: Path, name: str = "one") -> Path:
    """A library with the version of the project and the entry that TensorRT looks for; another name, another sha256."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = folder / "plugin.c", folder / "libproscale_plugin.so"
    source.write_text(
        f'const char* proscale_version(void) {{ return "{__version__}"; }}\n'
        "void* getCreators(int* count) { *count = 0; return 0; }\n"
        f"int {name};\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library
