"""What stays in FP32 when a file is FP16, and in FP16 when it is INT8: the one list, and why.

Positions, softmax and sums inside the deformable attention operator are FP32 whatever its tensors are
(``core.operator``); TensorRT's normalisation layers compute in FP32 by themselves.

Measured on the sample model and 32 streets, the results of FP32 being the truth, with FP16 as ``emulate`` has it.
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
"""None: FP16 costs nothing that could be measured (``BENCHMARKS.md``, Precision), so that no part of the network would
gain from FP32. A tensor that comes near the end of FP16's range gets its island when the file is made."""

INT8_EXCLUSIONS: Final[tuple[Rule, ...]] = (
    Rule(
        r"^/backbone/(stem|patch_embed)/",
        "three input channels fill no INT8 tile: nothing is gained",
        "alone in INT8: 2.06 points of PQ; of Swin-T in INT8 the masks err by 0.049 with it, by 0.036 without",
    ),
    Rule(
        r"^/predictor/mask_embed",
        "the sign of its products decides what attention sees",
        "alone in INT8: 0.47 points of PQ, for 0.4 % of the multiply-accumulates",
    ),
    Rule(
        r"^/predictor/class_embed/",
        "a product of a few queries: nothing is gained",
        "alone in INT8: 0.35 points of PQ, for 0.004 % of the multiply-accumulates",
    ),
    Rule(
        r"/token_excite(_\d+)?/",
        "one output channel per token: nothing is gained",
        "alone in INT8: 0.0003 points of PQ, for 0.003 % of the multiply-accumulates",
    ),
)


def matches(rules: Sequence[Rule], name: str) -> bool:
    """Whether a rule is about the node of this name."""
    return any(re.search(rule.pattern, name) for rule in rules)
