"""A plugin library for tests that never run it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from proscale_deploy import __version__


def compile_plugin_stub(folder: Path, name: str = "one", *, plugin: bool = True) -> Path:
    """A library with the version of the project and, but for ``plugin``, the entry that TensorRT looks for.

    Another name gives another sha256.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = folder / "plugin.c", folder / "libproscale_plugin.so"
    entry = "void* getCreators(int* count) { *count = 0; return 0; }\n" if plugin else ""
    source.write_text(f'const char* proscale_version(void) {{ return "{__version__}"; }}\n{entry}int {name};\n')
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library
