"""Widths that do not fit together are refused where a spec is made."""

from dataclasses import replace

import pytest

from support.reference import SMALL, SMALL_SWIN


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (SMALL.pixel_decoder, {"channels": 48}, r"SEM_SEG_HEAD\.CONVS_DIM is 48; supported: multiples of 32"),
        (SMALL.pixel_decoder, {"heads": 7}, r"SEM_SEG_HEAD\.CONVS_DIM is 64; .*NHEADS \(7\)"),
        (SMALL.decoder, {"channels": 50, "heads": 2}, r"MASK_FORMER\.HIDDEN_DIM is 50; supported: multiples of 4"),
        (SMALL.decoder, {"heads": 5}, r"MASK_FORMER\.HIDDEN_DIM is 64; .*NHEADS \(5\)"),
        (SMALL_SWIN, {"heads": (1, 3, 4, 4)}, r"SWIN\.NUM_HEADS is \[1, 3, 4, 4\]; supported: divisors of EMBED_DIM"),
    ],
)
def test_widths_that_do_not_fit_are_named(spec: object, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(spec, **changes)
