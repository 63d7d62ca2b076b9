"""Registers and local memory of the compiled kernels, on every architecture, against a recorded table."""

import pytest

from proscale_deploy.core import machine
from support.kernel_resources import Usage, architectures, compile_kernels, read_table

NVCC = machine.cuda_compiler()
RECORDED_WITH, REGISTERS = read_table()


@pytest.fixture(
    scope="module",
    params=architectures(NVCC) if NVCC else [pytest.param("", marks=pytest.mark.skip(reason="needs nvcc"))],
    ids="sm_{}".format,
)
def compiled(request: pytest.FixtureRequest) -> tuple[str, dict[str, Usage]]:
    assert NVCC is not None
    return request.param, compile_kernels(NVCC, request.param)


def test_everything_stays_in_registers(compiled: tuple[str, dict[str, Usage]]) -> None:
    _, usage = compiled
    assert len(usage) > 20
    assert {name: used for name, used in usage.items() if used.spills or used.stack or used.shared} == {}


def test_no_more_registers_than_recorded(compiled: tuple[str, dict[str, Usage]]) -> None:
    if NVCC is not None and NVCC.version != RECORDED_WITH:
        pytest.skip(f"needs nvcc {RECORDED_WITH}, with which the table was recorded; found {NVCC.version}")
    architecture, usage = compiled
    recorded = {kernel: registers for (kernel, column), registers in REGISTERS.items() if column == architecture}
    assert usage.keys() == recorded.keys(), "cd tests && python -m support.kernel_resources"
    more = {
        kernel: (used.registers, recorded[kernel])
        for kernel, used in usage.items()
        if used.registers > recorded[kernel]
    }
    assert more == {}, "(found, recorded)"
