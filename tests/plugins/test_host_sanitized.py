"""The host library under AddressSanitizer and UndefinedBehaviorSanitizer, over all cases, in a process of its own."""

from pathlib import Path

from support.sanitized import run_sanitized

IMPORTS = """
import numpy as np

from proscale_deploy.core.native import DType
from proscale_deploy.core.operator import Attributes
from support.deform_attn_cases import cases
"""
ALL_CASES = """
for dtype in DType:
    for case in cases(dtype):
        case.check(library.host(case.attributes, case.value, case.sampling))
print("done")
"""
BEYOND_THE_VALUE = """
attributes = Attributes(2, 4, ((4, 6), (8, 12)))
rows = np.ones((1, attributes.tokens - 1, 2 * 32), np.float32)
claimed = np.lib.stride_tricks.as_strided(rows, (1, attributes.tokens, 2 * 32))
library.host(attributes, claimed, np.zeros((1, attributes.tokens, 3 * attributes.samples), np.float32))
"""


def test_no_report_over_all_cases(sanitized_library: Path) -> None:
    assert b"__ubsan_handle" in sanitized_library.read_bytes()
    done = run_sanitized(sanitized_library, IMPORTS + ALL_CASES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_read_beyond_the_value_is_reported(sanitized_library: Path) -> None:
    """Or no report would mean nothing."""
    done = run_sanitized(sanitized_library, IMPORTS + BEYOND_THE_VALUE)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
