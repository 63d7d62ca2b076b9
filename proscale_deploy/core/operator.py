"""Multi-scale deformable attention as one ONNX node, and the function bodies that run it without a kernel of its own.

The node fuses what surrounds the sampling in Deformable DETR's MSDeformAttn (Zhu et al., ICLR 2021, section 4.1):
reference points, softmax, interpolation. With T one of FP32 and FP16:

- ``value`` (B, S, C) of T: the value projection. S counts the tokens of all levels, C = heads x head_dim.
- ``sampling`` (B, S, heads x levels x points x 3) of T: first all offsets, ordered (head, level, point, xy), in pixels
  of the sampled level; then all attention logits, ordered (head, level, point).
- ``output`` (B, S, C) of T.
- attributes ``heads`` and ``points``: int; ``levels``: ints (H0, W0, H1, W1, ...), S = sum of H x W.

The token at (x, y) of level l samples level k at ((x + .5) W_k / W_l - .5, (y + .5) H_k / H_l - .5) + offset: bilinear,
zero outside the map. A head sums its samples by the softmax of its levels x points logits. Positions, weights and sums
are FP32 whatever T is.

The body in every exported file gathers, because TensorRT and TensorRT-RTX miscompile GridSample here; ONNX Runtime's
session swaps in the form of :mod:`proscale_deploy.core.grid_sample`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import Size

if TYPE_CHECKING:
    import onnx

__all__ = ["DOMAIN", "OP_TYPE", "VERSION", "Attributes", "drop_bodies", "gather_function", "is_operator"]

DOMAIN = "proscale"
"""ONNX domain of the node."""

OP_TYPE = "ProScaleMSDeformAttn"
"""ONNX op_type, and the name of the TensorRT plugin: TensorRT finds a plugin by the op_type alone."""

VERSION = 1
"""Version of the domain in opset_import, and of the plugin."""


@dataclass(frozen=True)
class Attributes:
    """The attributes of one node."""

    heads: int
    points: int
    """Samples per head and level."""
    levels: tuple[Size, ...]
    """(height, width) of each map, in the order of the tokens."""

    def __post_init__(self) -> None:
        if self.heads < 1 or self.points < 1 or not self.levels or min(map(min, self.levels)) < 1:
            raise InputError(f"{OP_TYPE}: heads, points and level sizes must be positive, found {self}")

    @property
    def tokens(self) -> int:
        """S: the tokens of all levels."""
        return sum(height * width for height, width in self.levels)

    @property
    def samples(self) -> int:
        """Samples per token: heads x levels x points."""
        return self.heads * len(self.levels) * self.points

    @classmethod
    def of(cls, node: onnx.NodeProto) -> Attributes:
        """Read the attributes of a node.

        Raises:
            InputError: an attribute is missing or out of range.
        """
        found = {attribute.name: attribute for attribute in node.attribute}
        levels = list(found["levels"].ints) if "levels" in found else []
        if not {"heads", "points", "levels"} <= found.keys() or len(levels) % 2:
            raise InputError(
                f"{OP_TYPE} node {node.name!r}: expected attributes heads, points and levels (H0, W0, H1, W1, ...), "
                f"found {sorted(found)} with levels {levels}; export the model again"
            )
        return cls(found["heads"].i, found["points"].i, tuple(zip(levels[0::2], levels[1::2], strict=True)))


def is_operator(node: onnx.NodeProto) -> bool:
    """Whether a node is this operator."""
    return bool(node.domain == DOMAIN and node.op_type == OP_TYPE)


def drop_bodies(model: onnx.ModelProto) -> None:
    """Take the operator's function bodies out of ``model``, in place: what runs it has a kernel for the node."""
    kept = [function for function in model.functions if function.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(kept)


def gather_function() -> onnx.FunctionProto:
    """The body that stands in the file: one for all nodes, standard operators of opset 18, no GridSample.

    A compiler that inlines it folds whatever depends on the attributes alone. The four corners are written one by one:
    TensorRT-RTX fuses each of them (index, gather, product, sum) into one kernel that never stores the gathered rows.
    """
    import onnx.parser

    return onnx.parser.parse_function(_GATHER)


_GATHER = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
{OP_TYPE} <heads, points, levels> (value, sampling) => (output)
{{
    zero = Constant <value = int32 {{0}}> ()
    one = Constant <value = int32 {{1}}> ()
    half_f = Constant <value_float = 0.5> ()
    zero_f = Constant <value_float = 0.0> ()
    one_f = Constant <value_float = 1.0> ()
    outside = Constant <value_float = -1.0> ()
    begin = Constant <value_ints = [0]> ()
    two = Constant <value_ints = [2]> ()
    three = Constant <value_ints = [3]> ()
    rest = Constant <value_ints = [-1]> ()
    keep_2 = Constant <value_ints = [0, 0]> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    last_axis = Constant <value_ints = [-1]> ()
    column = Constant <value_ints = [-1, 1]> ()

    # Levels, (L,) or (L, 2) with xy = (width, height).
    levels = Constant <value_ints: ints = @levels> ()
    levels_i = Cast <to = 6> (levels)
    pairs = Constant <value_ints = [-1, 2]> ()
    sizes_yx = Reshape (levels_i, pairs)
    swap = Constant <value_ints = [1, 0]> ()
    sizes = Gather <axis = 1> (sizes_yx, swap)
    sizes_f = Cast <to = 1> (sizes)
    widths = Gather <axis = 1> (sizes, zero)
    areas = ReduceProd <keepdims = 0> (sizes, axis_1)
    level_count = Size (areas)
    level_count_i = Cast <to = 6> (level_count)
    level = Range (zero, level_count_i, one)
    level_column = Reshape (level, column)
    is_earlier = Less (level, level_column)
    earlier_areas = Where (is_earlier, areas, zero)
    starts = ReduceSum <keepdims = 0> (earlier_areas, axis_1)
    tokens = ReduceSum <keepdims = 0> (areas)

    # Tokens: own level and place in it, then the centre in pixels of every level, (S, 1, L, 1, 2).
    token = Range (zero, tokens, one)
    token_column = Reshape (token, column)
    is_past = GreaterOrEqual (token_column, starts)
    is_past_i = Cast <to = 6> (is_past)
    passed = ReduceSum <keepdims = 0> (is_past_i, axis_1)
    own_level = Sub (passed, one)
    own_start = Gather (starts, own_level)
    own_width = Gather (widths, own_level)
    own_index = Sub (token, own_start)
    own_y = Div (own_index, own_width)
    own_row = Mul (own_y, own_width)
    own_x = Sub (own_index, own_row)
    own_x_column = Reshape (own_x, column)
    own_y_column = Reshape (own_y, column)
    own_xy = Concat <axis = 1> (own_x_column, own_y_column)
    own_xy_f = Cast <to = 1> (own_xy)
    own_centre = Add (own_xy_f, half_f)
    own_size = Gather (sizes_f, own_level)
    reference = Div (own_centre, own_size)
    reference_1 = Unsqueeze (reference, axis_1)
    centre_edge = Mul (reference_1, sizes_f)
    centre = Sub (centre_edge, half_f)
    grid_axes = Constant <value_ints = [1, 3]> ()
    grid = Unsqueeze (centre, grid_axes)

    # Offsets (B, S, heads, L, P, 2) and attention (B, S, heads, L, P).
    heads = Constant <value_int: int = @heads> ()
    points = Constant <value_int: int = @points> ()
    heads_1 = Reshape (heads, rest)
    points_1 = Reshape (points, rest)
    levels_1 = Reshape (level_count, rest)
    head_samples = Mul (levels_1, points_1)
    samples = Mul (head_samples, heads_1)
    offsets_end = Mul (samples, two)
    logits_end = Mul (samples, three)
    offsets_flat = Slice (sampling, begin, offsets_end, axis_2)
    logits_flat = Slice (sampling, offsets_end, logits_end, axis_2)
    offsets_shape = Concat <axis = 0> (keep_2, heads_1, levels_1, points_1, two)
    offsets_t = Reshape (offsets_flat, offsets_shape)
    offsets = Cast <to = 1> (offsets_t)
    per_head = Concat <axis = 0> (keep_2, heads_1, rest)
    logits_t = Reshape (logits_flat, per_head)
    logits = Cast <to = 1> (logits_t)
    softmax = Softmax <axis = 3> (logits)
    attention_shape = Concat <axis = 0> (keep_2, heads_1, levels_1, points_1)
    attention = Reshape (softmax, attention_shape)

    # The four pixels: their square is moved inside the map, and the weight of each is max(0, 1 - its distance): zero
    # for all that lies outside. A map one pixel wide has no second column: Min makes that weight zero. A NaN would be
    # no index: it is put outside.
    place = Add (offsets, grid)
    undefined = IsNaN (place)
    position = Where (undefined, outside, place)
    size = Unsqueeze (sizes_f, axis_1)
    size_minus_1 = Sub (size, one_f)
    size_minus_2 = Sub (size_minus_1, one_f)
    floor = Floor (position)
    not_past = Min (floor, size_minus_2)
    low = Max (not_past, zero_f)
    from_low = Sub (position, low)
    from_high = Sub (from_low, one_f)
    low_distance = Abs (from_low)
    high_distance = Abs (from_high)
    low_hat = Sub (one_f, low_distance)
    high_hat = Sub (one_f, high_distance)
    high_or_none = Min (high_hat, size_minus_1)
    low_weight = Relu (low_hat)
    high_weight = Relu (high_or_none)
    left_weight = Gather <axis = 5> (low_weight, zero)
    top_weight = Gather <axis = 5> (low_weight, one)
    right_weight = Gather <axis = 5> (high_weight, zero)
    bottom_weight = Gather <axis = 5> (high_weight, one)
    top_attention = Mul (attention, top_weight)
    bottom_attention = Mul (attention, bottom_weight)
    weight_00 = Mul (top_attention, left_weight)
    weight_01 = Mul (top_attention, right_weight)
    weight_10 = Mul (bottom_attention, left_weight)
    weight_11 = Mul (bottom_attention, right_weight)

    # Rows of head_dim channels, numbered by (batch, token, head).
    value_heads = Reshape (value, per_head)
    rows = Flatten <axis = 3> (value_heads)
    heads_i = Cast <to = 6> (heads)
    low_i = Cast <to = 6> (low)
    left = Gather <axis = 5> (low_i, zero)
    top = Gather <axis = 5> (low_i, one)
    width = Reshape (widths, column)
    start = Reshape (starts, column)
    top_start = Mul (top, width)
    in_level = Add (top_start, left)
    in_image = Add (in_level, start)
    first_head = Mul (in_image, heads_i)
    head = Range (zero, heads_i, one)
    head_axes = Constant <value_ints = [1, 2]> ()
    head_3 = Unsqueeze (head, head_axes)
    in_image_row = Add (first_head, head_3)
    batch_1 = Shape <end = 1> (value)
    batch = Squeeze (batch_1)
    batch_i = Cast <to = 6> (batch)
    image = Range (zero, batch_i, one)
    image_rows = Mul (tokens, heads_i)
    image_start = Mul (image, image_rows)
    image_axes = Constant <value_ints = [1, 2, 3, 4]> ()
    image_start_5 = Unsqueeze (image_start, image_axes)
    size_i = Unsqueeze (sizes, axis_1)
    size_i_minus_1 = Sub (size_i, one)
    has_next = Min (size_i_minus_1, one)
    next_column = Gather <axis = 2> (has_next, zero)
    next_row = Gather <axis = 2> (has_next, one)
    column_rows = Mul (next_column, heads_i)
    width_rows = Mul (width, heads_i)
    row_rows = Mul (next_row, width_rows)
    row_00 = Add (in_image_row, image_start_5)
    row_01 = Add (row_00, column_rows)
    row_10 = Add (row_00, row_rows)
    row_11 = Add (row_10, column_rows)

    # Corner by corner, (B, S, heads, L, P, head_dim), summed over the samples to (B, S, heads, head_dim).
    value_00 = Gather (rows, row_00)
    value_00_f = Cast <to = 1> (value_00)
    scale_00 = Unsqueeze (weight_00, last_axis)
    term_00 = Mul (value_00_f, scale_00)
    value_01 = Gather (rows, row_01)
    value_01_f = Cast <to = 1> (value_01)
    scale_01 = Unsqueeze (weight_01, last_axis)
    term_01 = Mul (value_01_f, scale_01)
    sum_01 = Add (term_00, term_01)
    value_10 = Gather (rows, row_10)
    value_10_f = Cast <to = 1> (value_10)
    scale_10 = Unsqueeze (weight_10, last_axis)
    term_10 = Mul (value_10_f, scale_10)
    sum_10 = Add (sum_01, term_10)
    value_11 = Gather (rows, row_11)
    value_11_f = Cast <to = 1> (value_11)
    scale_11 = Unsqueeze (weight_11, last_axis)
    term_11 = Mul (value_11_f, scale_11)
    sum_11 = Add (sum_10, term_11)
    sample_axes = Constant <value_ints = [3, 4]> ()
    summed = ReduceSum <keepdims = 0> (sum_11, sample_axes)
    value_shape = Shape (value)
    output_f = Reshape (summed, value_shape)
    output = CastLike (output_f, value)
}}
"""
