"""What can go wrong while exporting: an error that says so, and no file. On a network of one convolution."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.errors import DeployError, ExportError, InputError
from proscale_deploy.core.types import ClassInfo, InputSpec, Thresholds
from proscale_deploy.export import to_onnx
from proscale_deploy.export.config import Config
from proscale_deploy.export.equality import check_equal
from proscale_deploy.export.model.deform_attn import ms_deform_attn
from proscale_deploy.export.to_onnx import export_onnx, round_up_size
from support.reference import SMALL
from support.results import listing

SIZE = (64, 96)
QUERIES, CLASSES = SMALL.decoder.queries, SMALL.num_classes


class Tiny(nn.Module):
    """A pooled image, a deformable attention, a convolution: outputs of the right shapes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.backbone = nn.Conv2d(3, QUERIES, 1)
        self.register_buffer("table", torch.randn(SIZE[0] * SIZE[1] // 256, 4 * 3, generator=generator))
        self.register_buffer("weights", torch.randn(3, 4, generator=generator))
        self.register_buffer("to_classes", torch.randn(4, QUERIES * (CLASSES + 1), generator=generator))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        small = F.avg_pool2d(image, 16)
        value = small.flatten(2).transpose(1, 2) @ self.get_buffer("weights")
        sampling = value.mean(-1, keepdim=True) + self.get_buffer("table")
        attended = ms_deform_attn(value, sampling, 2, 2, [(SIZE[0] // 16, SIZE[1] // 16)])
        logits = attended.mean(1) @ self.get_buffer("to_classes")
        return logits.reshape(-1, QUERIES, CLASSES + 1), self.masks(image)

    def masks(self, image: Tensor) -> Tensor:
        return self.backbone(F.avg_pool2d(image, 4))


def export(output: Path, model: nn.Module, size: tuple[int, int] = SIZE, classes: int = CLASSES) -> None:
    spec = InputSpec(64, 64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "RGB", 64, 64)
    config = Config(SMALL, spec, Thresholds(), dataset=None, sha256="c" * 64)
    infos = [ClassInfo(str(i), True, (0, 0, 0)) for i in range(classes)]
    export_onnx(config, model, infos, output, size=size, weights_sha256="d" * 64)


def fails(
    folder: Path, error: type[DeployError], message: str, model: nn.Module | None = None, **changes: object
) -> None:
    """Exporting raises, and a file that was there before is still the same."""
    output = folder / "model.onnx"
    output.write_bytes(b"before")
    with pytest.raises(error, match=message):
        export(output, model or Tiny(), **changes)  # type: ignore[arg-type]
    assert listing(folder) == ["model.onnx"]
    assert output.read_bytes() == b"before"


def test_the_tiny_network_itself_is_fine(tmp_path: Path) -> None:
    export(tmp_path / "model.onnx", Tiny())
    assert listing(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize(
    ("size", "divisibility", "expected"),
    [((64, 96), 32, (64, 96)), ((60, 97), 32, (64, 128)), ((1, 1), 32, (32, 32)), ((800, 1333), 32, (800, 1344))],
)
def test_round_up_size(size: tuple[int, int], divisibility: int, expected: tuple[int, int]) -> None:
    assert round_up_size(size, divisibility) == expected


def test_wrong_arguments(tmp_path: Path) -> None:
    fails(tmp_path, InputError, "of 32, found 60x96", size=(60, 96))
    fails(tmp_path, InputError, f"expected {CLASSES} classes, one per logit, found 3", classes=3)
    with pytest.raises(InputError, match="does not exist; create it: mkdir -p"):
        export(tmp_path / "missing" / "model.onnx", Tiny())


class Unknown(Tiny):
    def masks(self, image: Tensor) -> Tensor:
        return torch.special.bessel_j0(super().masks(image))


class Sampled(Tiny):
    def masks(self, image: Tensor) -> Tensor:
        masks = super().masks(image)
        return F.grid_sample(masks, masks[:, :2].permute(0, 2, 3, 1), align_corners=False)


class Traced(Tiny):
    """A trace that is not what the model computes."""

    def masks(self, image: Tensor) -> Tensor:
        masks = super().masks(image)
        return masks * 1.001 if torch.onnx.is_in_onnx_export() else masks


class OneImage(Tiny):
    """A trace that holds for the batch it was made with."""

    def masks(self, image: Tensor) -> Tensor:
        masks = super().masks(image)
        return masks.flatten(1).reshape(1, *masks.shape[1:])


class Broken(Tiny):
    def masks(self, image: Tensor) -> Tensor:
        return super().masks(image) * torch.nan


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Unknown, "PyTorch cannot express the model in ONNX: .*bessel_j0"),
        (Sampled, "GridSample node .* is left"),
        (Traced, r"the ONNX file differs from the PyTorch model: relative L2 errors (1.0e-03|9....-04)"),
        (Broken, "relative L2 errors nan, nan, nan"),
    ],
)
def test_networks_that_cannot_be_exported(tmp_path: Path, model: type[Tiny], message: str) -> None:
    fails(tmp_path, ExportError, message, model())


def test_a_network_that_runs_one_image_only(tmp_path: Path) -> None:
    fails(tmp_path, ExportError, "cannot run the network on a batch of 2: .*Reshape", OneImage())


def test_more_than_a_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "MAX_BYTES", 100)
    fails(tmp_path, ExportError, "use a smaller backbone")


def other_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1.001, tensor.name))


def no_body(model: onnx.ModelProto) -> None:
    del model.functions[:]


def other_levels(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "levels":
                attribute.ints[:] = [attribute.ints[1], attribute.ints[0]]


def inlined(model: onnx.ModelProto) -> None:
    model.CopyFrom(onnx.inliner.inline_local_functions(model))


def cut(model: onnx.ModelProto) -> None:
    del model.graph.node[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_weights, "onnxsim changed what the network computes: relative L2 errors"),
        (no_body, "onnxsim changed or dropped the function body"),
        (other_levels, "was given 1 ProScaleMSDeformAttn nodes and left 1, or changed their attributes"),
        (inlined, "expected fewer"),
        (cut, "onnxsim made an invalid model"),
    ],
)
def test_a_failed_simplification_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[onnx.ModelProto], None], message: str
) -> None:
    simplify = onnxsim.simplify

    def damaged(*arguments: object, **options: object) -> tuple[onnx.ModelProto, bool]:
        model, ok = simplify(*arguments, **options)
        damage(model)
        return model, ok

    monkeypatch.setattr(onnxsim, "simplify", damaged)
    fails(tmp_path, ExportError, message)


def test_onnxsim_that_fails_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such pass")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    fails(tmp_path, ExportError, r"onnxsim failed \(no such pass\)")
    monkeypatch.setattr(onnxsim, "simplify", lambda model, **_: (model, False))
    fails(tmp_path, ExportError, "its result differs")


def test_no_room_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", break_off)
    fails(tmp_path, InputError, f"temporary files to {tempfile.gettempdir()}: No space left on device; make room")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_writing_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    write = Path.write_bytes

    def break_off(path: Path, data: bytes) -> None:
        write(path, data[:100])
        raise error

    output = tmp_path / "model.onnx"
    output.write_bytes(b"before")
    monkeypatch.setattr(Path, "write_bytes", break_off)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt, match=r"No space left|^$"):
        export(output, Tiny())
    assert listing(tmp_path) == ["model.onnx"]
    assert output.read_bytes() == b"before"


def test_one_unlucky_image_is_no_difference() -> None:
    """A pixel on the threshold of the attention makes one image differ; a difference in every image is one."""
    calls = []

    def exact(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [images.mean(axis=(2, 3)), images]

    def unlucky(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        calls.append(images)
        return [output + 0.01 * (len(calls) == 1) for output in exact(images)]

    assert check_equal(unlucky, exact, (32, 32), batch=2, what="") == 0
    assert len(calls) == 2
    assert not np.array_equal(*calls)
    with pytest.raises(ExportError, match=r"^two networks: relative L2 errors 1.0e-02, 1.0e-02, 1.0e-02 on 3 batches"):
        check_equal(lambda images: [1.01 * output for output in exact(images)], exact, (32, 32), 1, "two networks")
    with pytest.raises(ExportError, match=r"expected an output of shape \(1, 3\), found \(1, 2\)"):
        check_equal(lambda images: [exact(images)[0][:, :2], images], exact, (32, 32), batch=1, what="")
