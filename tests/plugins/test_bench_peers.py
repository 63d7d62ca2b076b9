"""Other people's kernels in the benchmark, called on the CPU."""

import subprocess
import types
from pathlib import Path

import pytest
import torch

from plugins.bench import cases, forms, peers
from plugins.bench.cases import Case
from proscale_deploy.core import machine
from proscale_deploy.core.errors import InputError, PluginError

TINY = Case("tiny", ((2, 3), (4, 5), (7, 1)), batch=2, dtype="fp32")


@pytest.fixture
def no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets peers run on the CPU."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: types.SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(peers, "_compiled", lambda function: function)


_FOREIGN = r"""
#include <cmath>
#include <cstdint>
namespace {
template <typename Integer>
int sample(int type, int batch, int tokens, int heads, int headDim, int levels, int points, const float* value,
           const Integer* shapes, const Integer* starts, const float* locations, const float* weights, float* output,
           void* stream) {
    if (type != 0 || stream) return 7;
    for (int i = 0; i < batch * tokens * heads * headDim; ++i) {
        const int c = i % headDim, h = i / headDim % heads, t = i / headDim / heads, b = t / tokens;
        double sum = 0;
        for (int s = 0; s < levels * points; ++s) {
            const Integer k = s / points, height = shapes[2 * k], width = shapes[2 * k + 1];
            const float* place = locations + 2 * ((t * heads + h) * levels * points + s);
            const double x = place[0] * width - .5, y = place[1] * height - .5;
            for (int dy = 0; dy < 2; ++dy) {
                for (int dx = 0; dx < 2; ++dx) {
                    const double column = std::floor(x) + dx, row = std::floor(y) + dy;
                    if (column < 0 || column >= width || row < 0 || row >= height) continue;
                    const int64_t token = b * tokens + starts[k] + int64_t(row) * width + int64_t(column);
                    sum += weights[(t * heads + h) * levels * points + s] * (1 - std::abs(x - column)) *
                           (1 - std::abs(y - row)) * value[(token * heads + h) * headDim + c];
                }
            }
        }
        output[i] = float(sum);
    }
    return 0;
}
}
extern "C" int locations64(int t, int b, int n, int h, int d, int l, int p, const float* v, const int64_t* s,
                           const int64_t* f, const float* x, const float* w, float* o, void* q) {
    return sample(t, b, n, h, d, l, p, v, s, f, x, w, o, q);
}
extern "C" int locations32(int t, int b, int n, int h, int d, int l, int p, const float* v, const int32_t* s,
                           const int32_t* f, const float* x, const float* w, float* o, void* q) {
    return sample(t, b, n, h, d, l, p, v, s, f, x, w, o, q);
}
extern "C" int echo(int, int, int tokens, int, int, int, int, const float*, const int64_t*, const int64_t*,
                    const float* given, float* output, void*) {
    for (int i = 0; i < 256; ++i) output[i] = given[i];
    return tokens < 0;
}
extern "C" int refuse(int, ...) { return 3; }
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = machine.cxx_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler: apt install g++")
    folder = tmp_path_factory.mktemp("foreign")
    source, library = folder / "foreign.cpp", folder / "libforeign.so"
    source.write_text(_FOREIGN)
    command = [compiler.path, "-std=c++17", "-O1", "-shared", "-fPIC", source, "-o", library]
    subprocess.run(command, check=True, timeout=120)
    return library


@pytest.mark.usefixtures("no_stream")
@pytest.mark.parametrize(("symbol", "form"), [("locations64", "locations"), ("locations32", "locations-int32")])
def test_a_foreign_kernel_gets_locations_and_weights(foreign: Path, symbol: str, form: str) -> None:
    inputs = cases.make_inputs(TINY, seed=4)
    calls = peers.parse_peer(f"other={foreign}:{symbol}:{form}").bind(TINY, inputs)
    assert calls.op_only is not None
    truth = forms.exact(TINY, inputs)
    for call in (calls.whole, calls.op_only):
        torch.testing.assert_close(call().double(), truth, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("no_stream")
def test_a_foreign_kernel_gets_raw_sampling_or_locations_beside_logits(foreign: Path) -> None:
    inputs = cases.make_inputs(TINY, seed=4)
    fused = peers.parse_peer(f"other={foreign}:echo:fused").bind(TINY, inputs)
    assert fused.op_only is None
    assert torch.equal(fused.whole().flatten()[:256], inputs.sampling.flatten()[:256])

    beside = peers.parse_peer(f"other={foreign}:echo:flash").bind(TINY, inputs).whole().flatten()
    locations, logits = forms.locations_and_logits(inputs.sampling, forms.Grid.of(TINY, "cpu"))
    head = torch.cat([locations[0, 0, 0].flatten(), logits[0, 0, 0]])
    assert torch.equal(beside[: len(head)], head)


@pytest.mark.usefixtures("no_stream")
def test_a_foreign_kernel_that_fails(foreign: Path) -> None:
    calls = peers.parse_peer(f"other={foreign}:refuse:fused").bind(TINY, cases.make_inputs(TINY, seed=4))
    with pytest.raises(PluginError, match="returned 3"):
        calls.whole()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other", "expected NAME=LIBRARY.so:SYMBOL:FORM"),
        ("=lib.so:f:fused", "expected NAME=LIBRARY.so"),
        ("other=lib.so:f:any", "locations, locations-int32, flash"),
        ("other=nowhere.so:f:fused", "nowhere.so"),
        ("other={foreign}:missing:fused", 'no function missing; it must be extern "C"'),
    ],
)
def test_peers_that_cannot_be(foreign: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        peers.parse_peer(text.format(foreign=foreign))


def test_a_library_alone_must_be_ours(foreign: Path) -> None:
    with pytest.raises(PluginError):
        peers.parse_peer(f"other={foreign}")
