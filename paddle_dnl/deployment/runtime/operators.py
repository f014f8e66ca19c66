# SPDX-License-Identifier: Apache-2.0
"""Checks the operators of an exported graph against an allow-list before a backend loads it.

A graph from an untrusted source may contain operators that access files or run code: `save_combine`, `print`, `load`,
`read_file`, `py_func`, custom operators, communication. Only operators that compute tensors from tensors are allowed.
For ONNX these are all standard operators, and of ONNX Runtime's own domain those that its quantizer and optimizer
write, but not, for example, `EPContext`, which reads a file. Other domains and weights in external files are refused.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddle_dnl.errors import ExportError
from paddle_dnl.files.reading import parse_json, read_bytes

# Environment variable with operators that the user allows in addition, separated by commas.
VARIABLE = "PADDLE_DNL_ALLOWED_OPERATORS"

_PADDLE = frozenset(
    """
    abs acos acosh add add_n addmm affine_channel affine_grid all allclose amax amin angle any arange arg_max arg_min argmax
    argmin argsort array_length array_pop array_read array_to_tensor array_write as_complex as_real as_strided asin asinh
    assign assign_out assign_value atan atan2 atanh baddbmm batch_norm bernoulli bicubic_interp bicubic_interp_v2 bilinear
    bilinear_interp bilinear_interp_v2 bilinear_tensor_product bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or
    bitwise_right_shift bitwise_xor bmm box_clip box_coder brelu broadcast_tensors cast ceil celu channel_shuffle cholesky clip
    complex concat conditional_block conditional_block_infer conj conv2d conv2d_transpose conv2d_transpose_bias conv3d
    conv3d_transpose copysign correlation cos cosh create_array create_array_like crop crop_tensor cross cross_entropy
    cross_entropy_with_softmax cummax cummin cumprod cumsum data deformable_conv deformable_conv_v1 depthwise_conv2d
    depthwise_conv2d_transpose dequantize_abs_max dequantize_linear det determinant diag diag_embed diag_v2 diagonal digamma dist
    divide dot dropout eig eigh eigvals eigvalsh einsum elementwise_add elementwise_div elementwise_floordiv elementwise_fmax
    elementwise_fmin elementwise_heaviside elementwise_max elementwise_min elementwise_mod elementwise_mul elementwise_pow
    elementwise_sub elu embedding empty empty_like equal equal_all erf erfinv exp expand expand_as expand_as_v2 expand_v2 expm1
    exponential eye fake_channel_wise_dequantize_max_abs fake_channel_wise_quantize_abs_max
    fake_channel_wise_quantize_dequantize_abs_max fake_dequantize_max_abs fake_quantize_abs_max
    fake_quantize_dequantize_abs_max fake_quantize_dequantize_moving_average_abs_max
    fake_quantize_moving_average_abs_max fake_quantize_range_abs_max fc feed fetch fetch_v2 fft_c2c fft_c2r fft_r2c fill fill_any
    fill_any_like fill_constant fill_constant_batch_size_like fill_diagonal fill_diagonal_tensor flash_attn flash_attn_unpadded
    flatten flatten2 flatten_contiguous_range flip floor floor_divide fmax fmin fold frame frobenius_norm full
    full_batch_size_like full_int_array full_like full_with_tensor fused_softmax_mask fused_softmax_mask_upper_triangle gammaln
    gather gather_nd gaussian gaussian_random gelu greater_equal greater_than grid_sample grid_sampler group_norm gumbel_softmax
    hard_shrink hard_sigmoid hard_swish hardshrink hardsigmoid hardswish hardtanh heaviside histogram huber_loss i0 i0e i1 i1e if
    im2sequence imag increment index_add index_put index_sample index_select instance_norm inverse is_empty isclose isfinite
    isfinite_v2 isinf isinf_v2 isnan isnan_v2 kldiv_loss kron kthvalue l1_norm label_smooth layer_norm leaky_relu lerp less_equal
    less_than lgamma linear_interp linear_interp_v2 linspace log log10 log1p log2 log_loss log_softmax logcumsumexp logical_and
    logical_not logical_or logical_xor logit logsigmoid logspace logsumexp lookup_table lookup_table_v2 lp_pool2d lrn lstm lstsq
    lu masked_fill masked_select matmul matmul_v2 matmul_with_flatten matrix_nms matrix_power matrix_rank matrix_rank_tol max
    max_pool2d_v2 max_pool2d_with_index max_pool3d_with_index maximum maxout mean mean_all median memcpy memcpy_d2h memcpy_h2d
    memory_efficient_attention meshgrid min minimum mish mode moving_average_abs_max_scale mul multi_dot multiclass_nms
    multiclass_nms3 multinomial multiplex multiply mv nanmedian nearest_interp nearest_interp_v2 nextafter nll_loss nms nonzero
    norm not_equal numel one_hot one_hot_v2 ones ones_like overlap_add p_norm pad pad2d pad3d pixel_shuffle pixel_unshuffle
    poisson pool2d pool3d pow prelu prod put_along_axis qr quantize_linear randint randperm range range_v2 read_from_array real
    reciprocal reduce_all reduce_amax reduce_amin reduce_any reduce_as reduce_max reduce_mean reduce_min reduce_prod reduce_sum
    relu relu6 remainder renorm repeat_interleave repeat_interleave_with_tensor_index reshape reshape2 reverse rint rms_norm rnn
    roi_align roi_pool roll round row_conv rrelu rsqrt scale scatter scatter_nd_add searchsorted seed segment_pool select_input
    select_output selu sequence_mask set_value set_value_with_tensor shape shape64 share_data shuffle_channel sigmoid
    sigmoid_cross_entropy_with_logits sign silu sin sinh size slice slice_array slice_array_dense slogdet softmax
    softmax_with_cross_entropy softplus softshrink softsign solve spectral_norm split split_with_num sqrt square squared_l2_norm
    squeeze squeeze2 stack stanh std strided_slice subtract sum svd swiglu swish sync_batch_norm take_along_axis tan tanh
    tanh_shrink temporal_shift tensor_array_to_tensor tensor_unfold thresholded_relu tile top_k top_k_v2 topk trace transpose
    transpose2 triangular_solve tril tril_indices tril_triu trilinear_interp trilinear_interp_v2 triu triu_indices trunc unbind
    unfold uniform uniform_random unique unique_consecutive unpool unpool3d unsqueeze unsqueeze2 unstack var variance view_dtype
    view_shape view_slice where where_index while write_to_array yolo_box zeros zeros_like
    """.split()
)
# Operators of Paddle 3's other dialects: 0 is `builtin`, 2 is `cf`. `p` is a parameter from the file of weights.
_STRUCTURE = frozenset(
    "p 0.parameter 0.constant 0.combine 0.split 0.slice 0.set_parameter 0.shadow_output 2.yield 2.stack_create 2.tuple_push "
    "2.tuple_pop".split()
)
_ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
# Operators of the domain com.microsoft; names that start with QLinear are allowed as well.
_ONNX_RUNTIME = frozenset(
    """
    Attention BiasGelu BiasSplitGelu DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul FastGelu FusedConv FusedGemm
    FusedMatMul FusedMatMulActivation Gelu GroupNorm Inverse MatMulInteger16 MatMulIntegerToFloat MatMulNBits
    MultiHeadAttention NhwcConv NhwcFusedConv NhwcMaxPool QAttention QGemm QMoE QuantizeLinear QuickGelu SkipGroupNorm
    SkipLayerNormalization
    """.split()
)
_MAX_BYTES, _MAX_DEPTH = 512 << 20, 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is truncated")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields (field number, value) of each field of a protobuf message; values are integers or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise ValueError("a field is truncated")
            value, at = data[at : at + size], at + size
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
            value = 0
        else:
            raise ValueError(f"a field has the unknown wire type {kind}")
        yield key >> 3, value


def _message(data: memoryview, number: int) -> Iterator[memoryview]:
    """Yields the fields `number` of a message, which must be messages or strings."""
    for found, value in _fields(data):
        if found == number:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {number} is not a message")
            yield value


def _of_pir(value, depth: int = 0) -> Iterator[str]:
    """Yields the operators in Paddle 3's JSON, including nested regions."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "ops":
                for operator in item:
                    if not isinstance(operator, dict) or not isinstance(operator.get("#"), str):
                        raise ValueError("an operator without a name")
                    yield operator["#"]
            yield from _of_pir(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                yield from _of_pir(item, depth + 1)


def _of_onnx_graph(graph: memoryview, depth: int = 0) -> Iterator[str]:
    """Yields what is not allowed in a GraphProto: operators, also of subgraphs, and tensors in external files.

    Fields: node (1), initializer (5), sparse_initializer (15).
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    for tensor in (*_message(graph, 5), *_sparse(_message(graph, 15))):
        yield from _external(tensor)
    for node in _message(graph, 1):
        yield from _of_onnx_node(node, depth)


def _of_onnx_node(node: memoryview, depth: int) -> Iterator[str]:
    """Yields what is not allowed in a NodeProto: op_type (4), domain (7), attribute (5)."""
    name = b"".join(bytes(part) for part in _message(node, 4)).decode()
    domain = b"".join(bytes(part) for part in _message(node, 7)).decode()
    is_known = domain == "com.microsoft" and (name.startswith("QLinear") or name in _ONNX_RUNTIME)
    if domain not in _ONNX_DOMAINS and not is_known:
        yield f"{domain}::{name}"
    # AttributeProto: t (5), g (6), tensors (10), graphs (11), sparse_tensor (22), sparse_tensors (23).
    for attribute in _message(node, 5):
        sparse = _sparse((*_message(attribute, 22), *_message(attribute, 23)))
        for tensor in (*_message(attribute, 5), *_message(attribute, 10), *sparse):
            yield from _external(tensor)
        for graph in (*_message(attribute, 6), *_message(attribute, 11)):
            yield from _of_onnx_graph(graph, depth + 1)


def _sparse(tensors: Iterable[memoryview]) -> Iterator[memoryview]:
    """Yields the tensors of SparseTensorProtos: values (1) and indices (2)."""
    for tensor in tensors:
        yield from _message(tensor, 1)
        yield from _message(tensor, 2)


def _external(tensor: memoryview) -> Iterator[str]:
    """Yields a name if a TensorProto has external_data (13) or a data_location (14) other than the default."""
    if any(number == 13 or (number == 14 and value) for number, value in _fields(tensor)):
        yield "weights in another file"


def _unique_keys(pairs: list[tuple]) -> dict:
    """Builds a JSON mapping; refuses duplicate keys, because parsers disagree about which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a mapping has duplicate keys")
    return found


def _not_allowed(path: Path) -> set[str]:
    """Returns the operators of a graph that are not on the allow-list."""
    content = read_bytes(path)
    if path.suffix == ".json":
        names = {name.removeprefix("pd_op.").removeprefix("1.") for name in _of_pir(parse_json(content, _unique_keys))}
        return {name for name in names if name not in _STRUCTURE and name.removesuffix("_") not in _PADDLE}
    view = memoryview(content)
    if path.suffix == ".onnx":
        found = set()
        for graph in _message(view, 7):  # ModelProto.graph
            found |= set(_of_onnx_graph(graph))
        for function in _message(view, 25):  # ModelProto.functions; FunctionProto.node is 7
            for node in _message(function, 7):
                found |= set(_of_onnx_node(node, 0))
        for training in _message(view, 20):  # ModelProto.training_info: initialization (1), algorithm (2)
            for graph in (*_message(training, 1), *_message(training, 2)):
                found |= set(_of_onnx_graph(graph))
        return found
    names = set()
    for block in _message(view, 1):  # .pdmodel: ProgramDesc.blocks
        for operator in _message(block, 4):  # BlockDesc.ops
            types = [bytes(name).decode() for name in _message(operator, 3)]  # OpDesc.type
            if len(types) != 1:
                raise ValueError("an operator without a name, or with several")
            names.add(types[0])
    return {name for name in names if name.removesuffix("_") not in _PADDLE}


def require_known_operators(path: str | Path) -> None:
    """Refuses a graph (`.pdmodel`, Paddle 3's `.json`, `.onnx`) with operators that are not on the allow-list.

    Raises:
        ExportError: an operator is not allowed, or the file cannot be parsed.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES and path.suffix != ".onnx":
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        found = _not_allowed(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise ExportError(f"{path}: cannot be read as a graph ({error}); export the model again") from error
    found -= {name.strip() for name in os.environ.get(VARIABLE, "").split(",")}
    if found:
        names = ", ".join(sorted(found)[:5])
        raise ExportError(
            f"{path}: contains {names[:200]}, not among the operators that only compute; it is not loaded. If you trust this "
            f"file, set {VARIABLE}={names[:200].replace(' ', '')}"
        )
