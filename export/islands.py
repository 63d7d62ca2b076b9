"""What stays in FP32 when a file is FP16, and in FP16 when it is INT8: the one list, and why.

Positions, softmax and sums inside the deformable attention operator are FP32 whatever its tensors are
(``core.operator``); TensorRT's normalisation layers compute in FP32 by themselves.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["FP32_ISLANDS", "INT8_EXCLUSIONS", "Rule", "matches"]


@dataclass(frozen=True)
class Rule:
    """Nodes, by a regular expression that is searched in their names, and why they are kept out."""

    pattern: str
    reason: str
    measured: str


FP32_ISLANDS: Final[tuple[Rule, ...]] = ()
"""None is needed: no block of the sample model loses more than 0.02 points of PQ in FP16, nor all together (see
``BENCHMARKS.md``). A tensor that comes near the end of FP16's range gets its island when the file is made."""

INT8_EXCLUSIONS: Final[tuple[Rule, ...]] = (
    Rule(
        r"^/backbone/stem/",
        "three input channels fill no INT8 tile: nothing is gained",
        "PLACEHOLDER",
    ),
    Rule(
        r"^/predictor/mask_embed",
        "the sign of its products decides what attention sees",
        "PLACEHOLDER",
    ),
    Rule(
        r"^/predictor/class_embed/",
        "a product of a few queries: nothing is gained",
        "PLACEHOLDER",
    ),
    Rule(
        r"/token_excite(_\d+)?/",
        "one output channel per token: nothing is gained",
        "PLACEHOLDER",
    ),
)


def matches(rules: Sequence[Rule], name: str) -> bool:
    """Whether a rule is about the node of this name."""
    return any(re.search(rule.pattern, name) for rule in rules)
