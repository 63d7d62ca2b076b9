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

INT8_EXCLUSIONS: Final[tuple[Rule, ...]] = ()


def matches(rules: Sequence[Rule], name: str) -> bool:
    """Whether a rule is about the node of this name."""
    return any(re.search(rule.pattern, name) for rule in rules)
