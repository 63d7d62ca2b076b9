"""Counting the instructions of compiled kernels."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from plugins.bench import sass

SASS = """
Fatbin elf code:
================
arch = sm_90

\tcode for sm_90
\t\tFunction : _Z5tiledI6__halfEvPT_
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;               /* 0x00000a00ff017b82 */
                                                                       /* 0x000fe20000000800 */
        /*0010*/                   HFMA2.MMA R6, -RZ, RZ, 0, 0 ;        /* 0x0 */
        /*0020*/                   LDG.E.128.CONSTANT R4, [R2.64] ;     /* 0x0 */
        /*0030*/                   LDS.U16 R7, [R3] ;                   /* 0x0 */
        /*0040*/                   HFMA2 R8, R12, R10, R4 ;             /* 0x0 */
        /*0050*/                   HADD2.F32 R11, -RZ, R8.H0_H0 ;       /* 0x0 */
        /*0060*/                   SHFL.BFLY PT, R8, R7, 0x1, 0x1f ;    /* 0x0 */
        /*0070*/              @!P0 BRA 0x40 ;                           /* 0x0 */
        /*0080*/              @!P1 BRA P2, 0x20 ;                       /* 0x0 */
        /*0090*/               @P1 BRA 0xb0 ;                           /* 0x0 */
        /*00a0*/                   EXIT ;                               /* 0x0 */
        /*00b0*/                   BRA 0xb0;                            /* 0x0 */
        /*00c0*/                   NOP;                                 /* 0x0 */
"""


def test_sass_loops() -> None:
    ((key, code),) = sass.parse_sass(SASS).items()
    assert key == ("sm_90", "_Z5tiledI6__halfEvPT_")
    assert len(code) == 12
    outer, inner = sass.loops_of(code)
    assert (outer.start, outer.end, outer.is_innermost) == (0x20, 0x80, False)
    assert (inner.start, inner.end, inner.is_innermost) == (0x40, 0x70, True)
    assert inner.kinds == {"FP16 multiply, add": 1, "conversion": 1, "SHFL, VOTE": 1, "branch": 1}
    assert outer.kinds["LDG.128"] == outer.kinds["LDS.16"] == 1


@pytest.mark.parametrize(
    ("opcode", "operands", "kind"),
    [
        ("HFMA2.MMA", "R6, -RZ, RZ, 0, 0", "move, select"),
        ("IMAD.MOV.U32", "R1, RZ, RZ, R2", "move, select"),
        ("IMAD.WIDE.U32", "R1, R3, R4, R2", "integer"),
        ("LDG.E.U16", "R24, [R24.64]", "LDG.16"),
        ("LDG.E", "R24, [R24.64]", "LDG.32"),
        ("STG.E.64", "[R2.64], R24", "STG.64"),
        ("UIADD3", "UR4, UR4, 0x1, URZ", "uniform"),
        ("FHFMA", "R1, R2, R3, R4", "FP16 into FP32"),
        ("QSPARKLE", "", "other: QSPARKLE"),
    ],
)
def test_sass_kinds(opcode: str, operands: str, kind: str) -> None:
    assert sass.kind_of(opcode, operands) == kind


def test_sass_of_a_file_without_the_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sass.shutil, "which", lambda *_, **__: None)
    file = tmp_path / "a.so"
    file.touch()
    run = CliRunner().invoke(sass.main, [str(file)])
    assert run.exit_code == 1
    assert "cuobjdump is not here" in run.output
