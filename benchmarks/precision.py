"""Accuracy of the sample model in FP32, FP16 and INT8 on its 200 held-out streets, and the size of the files.

    python benchmarks/precision.py

INT8's ranges come from 32 streets of the training. FP16 is rounded as on a GPU (``export/emulate.py``), which ONNX
Runtime by itself does not do on a CPU.
"""

import sys
import tempfile
from pathlib import Path

import onnx

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from proscale_deploy.export.emulate import emulate_half  # noqa: E402
from proscale_deploy.export.precision import Recipe  # noqa: E402
from proscale_deploy.export.to_onnx import export_onnx  # noqa: E402
from proscale_deploy.runtime.session import open_session  # noqa: E402
from samples.street.evaluate import held_out_frames, measure, session_network  # noqa: E402
from samples.street.world import CLASSES  # noqa: E402
from support import street  # noqa: E402


def main() -> None:
    config, model = street.trained()
    recipes = {"fp32": None, "fp16": Recipe("fp16"), "int8": Recipe("int8", images=street.images(0, 32))}
    for name, recipe in recipes.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            plan = None if recipe is None else lambda graph, recipe=recipe: recipe
            summary = export_onnx(config, model, CLASSES, path, size=street.SIZE, weights_sha256="", recipe=plan)
            onnx.save(emulate_half(onnx.load(path)), path)
            with open_session(path) as session:
                scores = measure(session_network(session), held_out_frames(street.SIZE), config.thresholds)
        quality = {part: scores["panoptic"][part]["pq"] for part in ("all", "things", "stuff")}
        print(
            f"{name}: {summary.bytes / 1e6:.1f} MB, PQ {quality['all']:.2f}, things {quality['things']:.2f}, "
            f"stuff {quality['stuff']:.2f}, mIoU {scores['semantic']['miou']:.2f}, AP {scores['instance']['AP']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
