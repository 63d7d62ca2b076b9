"""The exported network in ONNX Runtime beside the official form in eager PyTorch, on this CPU: seconds per image.

    python benchmarks/onnx_cpu.py [HEIGHT WIDTH]

ResNet-50, stages 3-3-3, random weights. They take turns, so that whatever else the machine does hits all. The file runs
with the compiled operator too, where there is one: proscale-deploy plugin build --host-only
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from proscale_deploy.core.plugin_library import OVERRIDE, find_host  # noqa: E402
from proscale_deploy.core.types import ClassInfo, InputSpec, Thresholds  # noqa: E402
from proscale_deploy.export.config import Config  # noqa: E402
from proscale_deploy.export.model import build_model  # noqa: E402
from proscale_deploy.export.to_onnx import export_onnx  # noqa: E402
from proscale_deploy.runtime.session import open_session  # noqa: E402
from support.official import official_form  # noqa: E402
from support.reference import CASES, relative_l2  # noqa: E402

ROUNDS = 5


def main(height: int = 800, width: int = 1344) -> None:
    torch.manual_seed(0)
    spec = CASES["r50_proscale_3_3_3"]
    model = build_model(spec).eval()
    image = torch.randn(1, 3, height, width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        config = Config(spec, _input(height, width), Thresholds(), dataset=None, sha256="")
        classes = [ClassInfo(str(i), True, (0, 0, 0)) for i in range(spec.num_classes)]
        summary = export_onnx(config, model, classes, path, size=(height, width), weights_sha256="")
        print(f"exported in {summary.seconds:.0f} s: {summary.gmac:.1f} GMAC, {summary.bytes / 1e6:.0f} MB")
        sessions = [open_session(path)] if find_host() else []
        os.environ[OVERRIDE] = folder  # no library is there
        sessions.insert(0, open_session(path))

    official = official_form(model)
    with torch.inference_mode():
        forms: dict[str, Callable[[], np.ndarray]] = {
            "official form, PyTorch eager": lambda: official(image)[1].numpy()[0]
        }
        for session in sessions:
            forms[session.name] = lambda session=session: session.run(image.numpy())[0].mask_logits
        expected, *found = [run() for run in forms.values()]  # also warms up
        differences = ", ".join(f"{relative_l2(masks, expected):.1e}" for masks in found)
        print(f"threads: {torch.get_num_threads()}; relative L2 difference of the masks: {differences}")
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(ROUNDS):
            for name, run in forms.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    official_median = statistics.median(seconds["official form, PyTorch eager"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<36} {median:6.2f} s   ({min(values):.2f} to {max(values):.2f})  x{official_median / median:.2f}")


def _input(height: int, width: int) -> InputSpec:
    return InputSpec(height, width, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB", 800, 1333)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
