"""The benchmark of the kernels, as far as it needs no GPU."""

import ctypes
import dataclasses
import json
import math
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from plugins.bench import cases, forms, measure, peers, report, timing
from plugins.bench import machine as bench_machine
from plugins.bench.__main__ import main
from plugins.bench.cases import Case, Offsets
from plugins.bench.machine import Clocks
from proscale_deploy.core import machine
from proscale_deploy.core.errors import DeployError
from support.deform_attn import deform_attn_by_hand

ROOT = Path(__file__).parents[2]
TINY = Case("tiny", ((2, 3), (4, 5), (7, 1)), batch=2, dtype="fp32")


def test_cases_are_those_of_the_protocol() -> None:
    found = cases.all_cases()
    assert len(found) == len(set(found)) == len({case.name for case in found})
    assert {case.batch for case in found} == {1, 2, 4, 8}
    assert {case.dtype for case in found} == {"fp16", "fp32", "bf16"}
    assert {case.offsets.sigma for case in found} == {0.0, 0.5, 2.0, 5.0}
    assert set(cases.quick_cases()) <= set(found)
    sizes = {case.image: case.levels for case in found if len(case.levels) == 3}
    assert sizes["800x1333"] == ((25, 42), (50, 84), (100, 167))
    assert sizes["800x1344"] == ((25, 42), (50, 84), (100, 168))
    tokens = next(case for case in found if case.image == "prime").attributes.tokens
    assert all(tokens % divisor for divisor in range(2, math.isqrt(tokens) + 1))


def test_least_traffic_of_the_headline() -> None:
    # Worked out by hand: 22,050 tokens x (256 + 256 + 288) x 2 bytes, and 96 samples x 4 pixels x 64 bytes.
    assert cases.HEADLINE.bytes_moved == 35_280_000
    assert cases.HEADLINE.corner_bytes == 22_050 * 96 * 4 * 64


def test_inputs_are_a_ring_with_noise() -> None:
    case = Case("one", ((40, 50),), dtype="fp32", offsets=Offsets(0.0))
    inputs = cases.make_inputs(case, seed=1)
    offsets = inputs.sampling[0, :, : 2 * 32].view(-1, 8, 4, 2)
    assert torch.equal(offsets[0], offsets[-1])
    assert torch.allclose(offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    assert torch.allclose(offsets[0, 3, 1], torch.tensor([-2.0, 2.0]))
    assert inputs.value.std() == pytest.approx(1, abs=0.01)
    assert inputs.sampling[..., 2 * 32 :].std() == pytest.approx(1.5, abs=0.02)
    assert not torch.equal(inputs.value, cases.make_inputs(case, seed=2).value)
    assert torch.equal(inputs.sampling, cases.make_inputs(case, seed=1).sampling)


@pytest.mark.parametrize(
    ("noise", "sigma"), [(Offsets(2.0), 2.0), (Offsets(2.0, tail=0.05), math.sqrt(0.95 * 4 + 0.05 * 900))]
)
def test_noise_of_the_offsets(noise: Offsets, sigma: float) -> None:
    quiet = Case("one", ((40, 50),), dtype="fp32", offsets=Offsets(0.0))
    ring = cases.make_inputs(quiet, seed=1).sampling[..., :64]
    found = cases.make_inputs(dataclasses.replace(quiet, offsets=noise), seed=1).sampling[..., :64]
    assert (found - ring).std() == pytest.approx(sigma, rel=0.03)


def test_truth_is_the_definition() -> None:
    inputs = cases.make_inputs(TINY, seed=3)
    by_hand = deform_attn_by_hand(inputs.value.numpy(), inputs.sampling.numpy(), TINY.attributes)
    np.testing.assert_allclose(forms.exact(TINY, inputs).numpy(), by_hand, rtol=0, atol=1e-13)


def test_percentiles() -> None:
    times = timing.Times.of([float(n) for n in range(20, 0, -1)])
    assert (times.median, times.p95, times.runs) == (10.5, 19.0, 20)


def test_peers_take_turns_and_slow_ones_drop_out(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def elapsed(queue: Callable[[], object], before: Callable[[], object] | None = None) -> float:
        name = str(queue())
        log.append(("cold " if before else "") + name)
        return 1.5e6 if name == "slow" else 100.0

    monkeypatch.setattr(timing, "_elapsed", elapsed)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: torch.zeros(1))
    recorded = [
        timing.Recorded(lambda name=name: name, lambda name=name: name, torch.Tensor, True)  # type: ignore[misc]
        for name in ("quick", "slow")
    ]
    quick, slow = timing.time_in_turns(recorded, rounds=5)
    assert log[:6] == ["quick", "slow", "quick", "cold quick", "slow", "cold slow"]
    assert quick == (timing.Times(2.0, 2.0, 5), timing.Times(100.0, 100.0, 5))
    assert slow[0].runs == 2


class _Peer:
    def __init__(self, name: str, output: Callable[[cases.Inputs], torch.Tensor]) -> None:
        self.name, self.output = name, output

    def bind(self, case: Case, inputs: cases.Inputs) -> peers.Calls:
        return peers.Calls(lambda: self.output(inputs), lambda: self.output(inputs))


def _fail(_: cases.Inputs) -> torch.Tensor:
    raise ValueError("not for\nthis case")


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> measure.Result:
    """A run on the CPU with made-up times: the third peer fails, the fourth computes nonsense."""
    make_inputs = cases.make_inputs
    monkeypatch.setattr(measure, "make_inputs", lambda case, seed, _: make_inputs(case, seed))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(multi_processor_count=100))

    def record(calls: list[Callable[[], torch.Tensor]]) -> timing.Recorded:
        calls[0]()
        return timing.Recorded(lambda: None, lambda: None, calls[0], is_captured=True)

    def time_in_turns(recorded: list[timing.Recorded], rounds: int) -> list[tuple[timing.Times, timing.Times]]:
        return [
            (timing.Times(10.0 + n, 20.0 + n, rounds), timing.Times(30.0 + n, 40.0, rounds))
            for n in range(len(recorded))
        ]

    monkeypatch.setattr(measure, "record", record)
    monkeypatch.setattr(measure, "time_in_turns", time_in_turns)
    clocks = types.SimpleNamespace(read=lambda: Clocks(1000, 2000, 50))
    all_peers = [
        _Peer("exact", lambda inputs: forms.exact(TINY, inputs).float()),
        _Peer("off", lambda inputs: forms.exact(TINY, inputs) + 0.5),
        _Peer("failing", _fail),
        _Peer("nonsense", lambda inputs: inputs.value * math.nan),
    ]
    return measure.measure(TINY, all_peers, bandwidth=1e9, clocks=clocks, rounds=3)  # type: ignore[arg-type]


def test_measured(result: measure.Result) -> None:
    exact, off, failing, nonsense = result.peers
    assert exact.error is not None
    assert exact.error.greatest < 1e-6
    assert off.error == measure.Error(pytest.approx(0.5), pytest.approx(0.5))
    assert failing.problem == "ValueError: not for"
    assert failing.warm is None
    assert nonsense.error is None
    assert nonsense.problem == "the output holds NaN or infinities"
    # Whole calls come first, then those without preparation; the failing peer has neither.
    assert [peer.warm.median for peer in (exact, off, nonsense) if peer.warm] == [10.0, 11.0, 12.0]
    assert [peer.op_only.median for peer in (exact, off, nonsense) if peer.op_only] == [13.0, 14.0, 15.0]


def test_floor(result: measure.Result) -> None:
    tokens = 2 * (6 + 20 + 7)
    assert result.floor.dram == pytest.approx(tokens * (256 + 256 + 288) * 4 / 1e9 * 1e6)
    assert result.floor.l1 == pytest.approx(tokens * 96 * 4 * 32 * 4 / (128 * 100 * 1000))
    assert result.peers[0].of_floor == pytest.approx(result.floor.greater / 10.0)
    assert measure.Floor.of(TINY, 1e9, 100, sm_mhz=None).l1 is None


def test_table_and_json(result: measure.Result, tmp_path: Path) -> None:
    text = report.table(result)
    assert len(text.splitlines()) == 2 + 4
    assert max(map(len, text.splitlines())) < 140
    assert "ValueError: not for" in text

    path = tmp_path / "bench.json"
    report.write_json(path, {"device": "none"}, 1e9, [result])
    read = json.loads(path.read_text())
    assert read["results"][0]["peers"][0]["warm"] == {"median": 10.0, "p95": 20.0, "runs": 3}
    assert read["results"][0]["case"]["levels"] == [[2, 3], [4, 5], [7, 1]]
    assert [file.name for file in tmp_path.iterdir()] == ["bench.json"]


def test_a_lost_device_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(DeployError, match="wild left the device unusable"):
        measure._check_device("wild")


_NVML = r"""
#include <cstring>
extern "C" int nvmlInit_v2() { return 0; }
extern "C" int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
    *device = reinterpret_cast<void*>(5);
    return std::strcmp(uuid, "GPU-12-34") != 0;
}
extern "C" int nvmlSystemGetDriverVersion(char* text, unsigned length) { return !std::strncpy(text, "580.1", length); }
extern "C" int nvmlDeviceGetClockInfo(void* device, int which, unsigned* mhz) {
    *mhz = 1000u * static_cast<unsigned>(which);
    return device != reinterpret_cast<void*>(5);
}
extern "C" int nvmlDeviceGetMaxClockInfo(void*, int which, unsigned* mhz) {
    *mhz = 1980;
    return which != 1;
}
extern "C" int nvmlDeviceGetTemperature(void*, int, unsigned*) { return 3; }  // not supported
"""


def test_clocks_through_nvml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = machine.cxx_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler: apt install g++")
    source, library = tmp_path / "nvml.cpp", tmp_path / "libnvidia-ml.so.1"
    source.write_text(_NVML)
    subprocess.run([compiler.path, "-shared", "-fPIC", source, "-o", library], check=True, timeout=120)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid="12-34"))
    load = ctypes.CDLL
    monkeypatch.setattr(bench_machine.ctypes, "CDLL", lambda name: load(str(tmp_path / name)))
    clocks = bench_machine.ClockReader()
    assert clocks.read() == Clocks(1000, 2000, None)
    assert clocks.greatest_sm_mhz() == 1980
    assert clocks.driver() == "580.1"
    monkeypatch.setattr(bench_machine.ctypes, "CDLL", lambda name: load(str(tmp_path / "nowhere" / name)))
    assert bench_machine.ClockReader().read() == Clocks(None, None, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_one_sentence() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "plugins.bench", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    assert run.stderr == "Error: no CUDA GPU here: the benchmark needs one, and a PyTorch built for CUDA\n"


def test_output_is_checked_first(tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["--output", str(tmp_path / "missing" / "a.json")])
    assert run.exit_code == 1
    assert "does not exist" in run.output
