"""Which room may import what. Read from the syntax trees, and checked once more on what an import really loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "core": ROOT / "proscale_deploy" / "core",
    "cli": ROOT / "proscale_deploy" / "cli",
    "export": ROOT / "export",
    "runtime": ROOT / "runtime",
}
NEVER = {
    "core": ("proscale_deploy.export", "proscale_deploy.runtime", "proscale_deploy.cli"),
    "export": ("proscale_deploy.runtime", "proscale_deploy.cli"),
    "runtime": ("proscale_deploy.export", "proscale_deploy.cli", "torch"),
    "cli": (),
}
"""Not even inside functions."""
AT_THE_TOP = {
    "core": {"numpy", "proscale_deploy", "proscale_deploy.core"},
    "cli": {"click", "proscale_deploy", "proscale_deploy.core", "proscale_deploy.cli"},
    "runtime": {"numpy", "cv2", "PIL", "proscale_deploy", "proscale_deploy.core", "proscale_deploy.runtime"},
}
"""Besides the standard library, all that may be imported outside functions; export may import what it needs."""


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the file is) of every import that is executed."""

    def walk(node: ast.AST, at_top: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level + (node.module or "")), at_top
            if node.module == "proscale_deploy":
                yield from (
                    (f"proscale_deploy.{alias.name}", at_top) for alias in node.names if alias.name != "__version__"
                )
        below = at_top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, below)

    return walk(tree, True)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def violations(code: str, room: str) -> list[str]:
    found = []
    for module, at_top in imports(ast.parse(code)):
        if module.startswith("."):
            found.append(f"relative import {module}")
        if any(is_within(module, forbidden) for forbidden in NEVER[room]):
            found.append(f"{room} imports {module}")
        first = module.partition(".")[0]
        allowed = first in sys.stdlib_module_names or any(
            module == package or (package != "proscale_deploy" and is_within(module, package))
            for package in AT_THE_TOP.get(room, {module})
        )
        if at_top and not allowed:
            found.append(f"{room} imports {module} outside functions")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_keep_the_law(room: str) -> None:
    files = sorted(ROOMS[room].rglob("*.py"))
    assert files
    broken = {str(file.relative_to(ROOT)): found for file in files if (found := violations(file.read_text(), room))}
    assert broken == {}


@pytest.mark.parametrize(
    ("room", "code", "count"),
    [
        ("core", "import numpy as np\nfrom proscale_deploy.core.types import Size", 0),
        ("core", "import torch", 1),
        ("core", "def f():\n    import onnx", 0),
        ("core", "def f():\n    from proscale_deploy.runtime import Segmenter", 1),
        ("core", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx", 0),
        ("export", "import torch", 0),
        ("export", "def f():\n    from proscale_deploy import runtime", 1),
        ("runtime", "import onnx", 1),
        ("runtime", "def f():\n    import onnx", 0),
        ("runtime", "class A:\n    def f(self):\n        import torch.nn", 1),
        ("cli", "from proscale_deploy.export.config import load_config", 1),
        ("cli", "def f():\n    from proscale_deploy.export.config import load_config", 0),
        ("cli", "import proscale_deploy.core.types, click", 0),
        ("runtime", "from .draw import render", 2),
        ("runtime", "try:\n    import tensorrt\nexcept ImportError:\n    pass", 1),
    ],
)
def test_the_law_itself(room: str, code: str, count: int) -> None:
    assert len(violations(code, room)) == count


def test_pycuda_is_in_one_file() -> None:
    files = [
        file
        for folder in ROOMS.values()
        for file in folder.rglob("*.py")
        if any(is_within(module, "pycuda") for module, _ in imports(ast.parse(file.read_text())))
    ]
    assert len(files) <= 1


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("proscale_deploy", {"torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "cv2", "numpy"}),
        ("proscale_deploy.cli", {"torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "cv2"}),
        ("proscale_deploy.runtime", {"torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda"}),
    ],
)
def test_what_an_import_loads(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert forbidden & set(run.stdout.split()) == set()
