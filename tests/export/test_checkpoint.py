"""Weights files: every format gives the same tensors, old names are brought up to date, bad files are told apart."""

import hashlib
import pickle
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from proscale_deploy.core.errors import CheckpointError
from proscale_deploy.export.checkpoint import Weights, load_state_dict, load_weights
from support.reference import CASES, state_dict_entries, synthetic_weights

HEAD = "sem_seg_head.predictor"


def entries() -> dict[str, Tensor]:
    """A few entries with official names; values that are exact in half precision."""
    return {
        "backbone.stem.conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
        "sem_seg_head.pixel_decoder.mask_features.weight": torch.tensor([[0.5, -2.0]]),
        f"{HEAD}.query_feat.weight": torch.arange(6.0).reshape(3, 2).T,
        f"{HEAD}.level": torch.tensor(0.25),
    }


def numpy_entries() -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in entries().items()}


def dump(path: Path, value: Any) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


class LRScheduler:
    """What a training checkpoint may hold besides tensors."""


FORMATS = {
    "nested.pth": lambda path: torch.save({"model": entries(), "iteration": 7}, path),
    "lightning.pt": lambda path: torch.save({"state_dict": entries(), "epoch": 7}, path),
    "bare.pth": lambda path: torch.save(entries(), path),
    "ordered.pth": lambda path: torch.save({"model": OrderedDict(entries())}, path),
    "legacy.pth": lambda path: legacy({"model": entries()}, path),
    "zoo.pkl": lambda path: dump(
        path, {"model": numpy_entries(), "__author__": "someone", "matching_heuristics": True}
    ),
    "bare.pkl": lambda path: dump(path, numpy_entries()),
    "big.safetensors": lambda path: save_file({k: v.contiguous() for k, v in entries().items()}, path),
    "parallel.pth": lambda path: torch.save({"model": {f"module.{k}": v for k, v in entries().items()}}, path),
    "half.pth": lambda path: torch.save({k: v.half() for k, v in entries().items()}, path),
    "bfloat.pth": lambda path: torch.save({k: v.bfloat16() for k, v in entries().items()}, path),
    "double.pkl": lambda path: dump(path, {k: v.astype(np.float64) for k, v in numpy_entries().items()}),
    "big-endian.pkl": lambda path: dump(path, {k: v.astype(">f4") for k, v in numpy_entries().items()}),
    # The content counts, not the name.
    "really-torch.pkl": lambda path: torch.save(entries(), path),
    "really-safetensors.pth": lambda path: save_file({k: v.contiguous() for k, v in entries().items()}, path),
    "really-a-pickle.safetensors": lambda path: dump(path, numpy_entries()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_tensors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FORMATS[name](path)
    weights = load_state_dict(path)
    assert list(weights.tensors) == list(entries()) or name.endswith(("safetensors", "safetensors.pth"))
    assert weights.tensors.keys() == entries().keys()
    for key, expected in entries().items():
        assert weights.tensors[key].dtype == torch.float32
        torch.testing.assert_close(weights.tensors[key], expected, rtol=0, atol=0)
    assert weights.path == path
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_training_checkpoint(tmp_path: Path) -> None:
    """As detectron2's periodic checkpointer writes it, with momentum buffers and the scheduler's numbers."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])  # holds a Counter
    path = tmp_path / "model_0004999.pth"
    torch.save(
        {
            "model": entries(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "ema": OrderedDict(entries()),
            "iteration": 4999,
            "results": {"PQ": [51.9, None]},
        },
        path,
    )
    assert load_state_dict(path).tensors.keys() == entries().keys()


def test_entries_that_are_no_weights_are_dropped(tmp_path: Path) -> None:
    extra = {
        "criterion.empty_weight": torch.ones(134),
        "pixel_mean": torch.ones(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(5),
        "backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
    }
    path = tmp_path / "model.pth"
    torch.save({"model": entries() | extra}, path)
    assert load_state_dict(path).tensors.keys() == entries().keys()


def test_old_names(tmp_path: Path) -> None:
    """Before version 2 the head had no pixel_decoder prefix, and the queries were static."""
    path = tmp_path / "old.pkl"
    old = {
        "backbone.stem.conv1.weight": np.ones(1, np.float32),
        "sem_seg_head.mask_features.weight": np.ones(2, np.float32),
        "sem_seg_head.adapter_1.weight": np.ones(3, np.float32),
        "sem_seg_head.predictor.static_query.weight": np.ones(4, np.float32),
        "sem_seg_head.predictor.query_embed.weight": np.ones(5, np.float32),
    }
    dump(path, {"model": old})
    assert {name: len(tensor) for name, tensor in load_state_dict(path).tensors.items()} == {
        "backbone.stem.conv1.weight": 1,
        "sem_seg_head.pixel_decoder.mask_features.weight": 2,
        "sem_seg_head.pixel_decoder.adapter_1.weight": 3,
        "sem_seg_head.predictor.query_feat.weight": 4,
        "sem_seg_head.predictor.query_embed.weight": 5,
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "model.pth"
    broken = entries()
    broken["backbone.stem.conv1.weight"][1, 2, 1, 1] = bad
    torch.save({"model": broken}, path)
    with pytest.raises(CheckpointError, match=r"in 1 of 4 entries, first backbone\.stem\.conv1\.weight"):
        load_state_dict(path)


def test_too_large_for_float32(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({f"{HEAD}.query_feat.weight": torch.tensor([1e300], dtype=torch.float64)}, path)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: torch.ones(2, dtype=torch.complex64), "strided complex64"),
        (lambda: torch.ones(2, dtype=torch.int8), "strided int8"),
        (lambda: torch.ones(2).to(torch.float8_e4m3fn), "strided float8_e4m3fn"),
        (lambda: torch.eye(2).to_sparse(), "sparse_coo float32"),
        (lambda: torch.ones(2, device="meta"), "without content"),
    ],
)
def test_tensors_that_are_no_weights(tmp_path: Path, make: Callable[[], Tensor], found: str) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": entries() | {f"{HEAD}.level": make()}}, path)
    assert f"entry {HEAD}.level is {found}, expected dense" in message(path)


@pytest.mark.parametrize(
    "model",
    [
        {"stem.conv1.weight": np.ones(3), "res2.0.conv1.weight": np.ones(3)},  # detectron2's R-50.pkl
        {"conv1_w": np.ones(3), "res2_0_branch2a_w": np.ones(3)},  # MSRA's, of Caffe2
        {"patch_embed.proj.weight": np.ones(3)},  # Swin
    ],
)
def test_a_pretrained_backbone(tmp_path: Path, model: dict[str, np.ndarray]) -> None:
    path = tmp_path / "R-50.pkl"
    dump(path, {"model": model, "__author__": "torchvision", "matching_heuristics": True})
    with pytest.raises(CheckpointError, match=r"pretrained backbone.*model_final\.pth") as caught:
        load_state_dict(path)
    assert next(iter(model)) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], "expected a dictionary of weights, found a list"),
        ({}, "found there: nothing"),
        ({"model": {}}, "no weights under"),
        ({"epoch": 3, "net": {"a": torch.ones(1)}}, "found there: epoch, net"),
    ],
)
def test_files_without_weights(tmp_path: Path, value: Any, expected: str) -> None:
    path = tmp_path / "model.pth"
    torch.save(value, path)
    with pytest.raises(CheckpointError, match=expected):
        load_state_dict(path)


def test_arrays_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    dump(path, {"model": {f"{HEAD}.query_feat.weight": np.array(["a"])}})
    with pytest.raises(CheckpointError, match=rf"entry {HEAD}\.query_feat\.weight cannot be read: .*not of numbers"):
        load_state_dict(path)


def message(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"hello\n", "expected trained weights: .pth or .pt"),
        (b"MODEL: {}", "a text file that begins with 'MODEL: {}'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>404", "a web page"),
        (b"<html>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture; expected trained weights"),
        (bytes(4096), "an unknown format"),
        (b"PK\x03\x04", "damaged, truncated, or no torch checkpoint"),
        (b"\x10\0\0\0\0\0\0\0{}", "damaged or truncated .safetensors file"),
        (b"\x80\x02}", "damaged or truncated pickle"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_files_that_are_something_else(tmp_path: Path, content: bytes, expected: str, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert expected in message(path)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "No such file" in message(tmp_path / "missing.pth")
    assert "directory" in message(tmp_path)


def test_another_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, a=np.ones(3))
    assert "no torch checkpoint" in message(path)


@pytest.mark.parametrize("name", ["nested.pth", "legacy.pth", "zoo.pkl", "big.safetensors"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    FORMATS[name](path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    assert "damaged" in message(path)


class Exploit:
    """Pickles itself as a call of eval."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("save", [torch.save, legacy, lambda value, path: dump(path, value)])
def test_a_malicious_file_runs_nothing(tmp_path: Path, save: Any) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pth"
    save({"model": {f"{HEAD}.query_feat.weight": Exploit(mark)}}, path)
    text = message(path)
    assert "eval" in text
    assert "nothing was run" in text
    assert not mark.exists()
    if save is not torch.save:
        return
    torch.load(path, weights_only=False)
    assert mark.exists(), "the exploit itself must work, or this test proves nothing"


def module() -> nn.Module:
    parts = nn.ModuleDict({"predictor": nn.ModuleDict({"query_feat": nn.Embedding(3, 2)})})
    return nn.ModuleDict({"sem_seg_head": parts})


@pytest.mark.parametrize(
    "saved", [lambda: {"model": module()}, module, lambda: {"model": entries(), "scheduler": nn.ReLU()}]
)
def test_the_advice_for_a_file_that_holds_objects_works(tmp_path: Path, saved: Callable[[], Any]) -> None:
    path = tmp_path / "objects.pth"
    torch.save(saved(), path)
    text = message(path)
    assert "Only if you trust the file, as this runs code in it" in text
    command = shlex.split(text[text.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, timeout=120, check=True)
    assert f"{HEAD}.query_feat.weight" in load_state_dict(tmp_path / "objects_weights.pth").tensors


def test_a_malicious_pickle_put_into_a_good_torch_file(tmp_path: Path) -> None:
    mark, good, bad = tmp_path / "mark", tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save({"model": entries()}, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            target.writestr(item, pickle.dumps(Exploit(mark), 2) if item.filename.endswith("data.pkl") else content)
    assert "nothing was run" in message(bad)
    assert not mark.exists()


def test_foreign_classes_are_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": entries(), "scheduler": LRScheduler()}, path)
    text = message(path)
    assert f"{LRScheduler.__module__}.LRScheduler" in text
    run_advice(text, tmp_path, monkeypatch)
    assert load_state_dict(tmp_path / "model_weights.pth").tensors.keys() == entries().keys()


def test_torch_tensors_in_a_plain_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the conversion script for pretrained Swin weights writes them."""
    path = tmp_path / "swin.pkl"
    dump(path, {"model": entries()})
    text = message(path)
    assert "torch._utils._rebuild_tensor_v2" in text
    run_advice(text, tmp_path, monkeypatch)
    assert load_state_dict(tmp_path / "swin_weights.pth").tensors.keys() == entries().keys()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
def test_a_pickle_protocol_that_torch_reads_only_unsafely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": entries()}, path, pickle_protocol=4)
    text = message(path)
    assert "Unsupported operand" in text
    run_advice(text, tmp_path, monkeypatch)
    assert load_state_dict(tmp_path / "model_weights.pth").tensors.keys() == entries().keys()


def run_advice(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that a message gives must work as it stands."""
    command = text.split('python -c "')[1].removesuffix('"')
    monkeypatch.chdir(folder)
    exec(command, {})


class Fake(nn.Module):
    """A model with the given entries as buffers."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_buffer(last, torch.zeros(shape))


@pytest.mark.parametrize("case", CASES)
def test_the_official_entries_load(case: str, tmp_path: Path) -> None:
    official = state_dict_entries(case)
    if sum(int(np.prod(shape)) for shape, _ in official.values()) > 20_000_000:
        official = {name: ((*(min(n, 8) for n in shape),), dtype) for name, (shape, dtype) in official.items()}
    path = tmp_path / "model.pth"
    torch.save({"model": synthetic_weights(official)}, path)
    weights = load_state_dict(path)
    model = Fake({name: shape for name, (shape, _) in official.items() if not name.startswith("criterion.")})
    load_weights(model, weights)
    loaded = model.state_dict()
    for name, expected in synthetic_weights(official).items():
        if not name.startswith("criterion."):
            torch.testing.assert_close(loaded[name], expected, rtol=0, atol=0)


def test_a_misfit_is_one_message(tmp_path: Path) -> None:
    good = {name: tuple(tensor.shape) for name, tensor in entries().items()}
    weights = Weights(tmp_path / "w.pth", entries(), "")
    load_weights(Fake(good | {"norm.num_batches_tracked": ()}), weights)
    other = good | {"backbone.stem.conv1.weight": (2, 3, 7, 7), "backbone.res2.0.conv1.weight": (1,)}
    del other[f"{HEAD}.level"]
    with pytest.raises(CheckpointError) as caught:
        load_weights(Fake(other), weights)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/w.pth: the weights do not fit the YAML",
        "1 entry of another shape: backbone.stem.conv1.weight 2x3x2x2, expected 2x3x7x7",
        "1 entry missing in the file: backbone.res2 (1)",
        f"1 entry not in the model: {HEAD}.level (1)",
    ]


def test_reading_does_not_touch_the_file(tmp_path: Path) -> None:
    path, copy = tmp_path / "model.pth", tmp_path / "copy.pth"
    torch.save(entries(), path)
    shutil.copy(path, copy)
    weights = load_state_dict(path)
    for tensor in weights.tensors.values():
        tensor.zero_()
    assert path.read_bytes() == copy.read_bytes()
