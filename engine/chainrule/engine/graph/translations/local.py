"""Operators of chainrule's own: what ONNX's are not, bit for bit, in the forward or in the gradient.

A model carries each as a function in the domain `chainrule`, whose body says in ONNX's operators what it computes, so
that every tool can run it. `graph.load` knows them by name and computes the engine's operation.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx.parser

DOMAIN = "chainrule"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Local:
    """An operator of chainrule's."""

    name: str
    text: str
    """Inputs, outputs and body as onnx.parser reads them."""

    def proto(self, opset: int) -> onnx.FunctionProto:
        """The function, for a model in this opset."""
        head = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}, "{DOMAIN}" : {VERSION}]>'
        return onnx.parser.parse_function(f"{head}\n{self.name} {self.text}")


locals_: dict[str, Local] = {}
"""All of them by name."""


def define(name: str, text: str) -> Local:
    """Enters an operator."""
    made = locals_[name] = Local(name, text)
    return made


def number(name: str, value: str, like: str = "x") -> str:
    """Lines of a body: a number in the dtype of a value."""
    return f"{name}_0 = Constant <value_float: float = {value}> ()\n {name} = CastLike ({name}_0, {like})"


# ---- What changes nothing but gradients, memory, or training ----

detach = define("Detach", "(x) => (y) { y = Identity (x) }")
contiguous = define("Contiguous", "<channels_last> (x) => (y) { y = Identity (x) }")
alpha_dropout = define("AlphaDropout", "<p, channels> (x) => (y) { y = Identity (x) }")

fused_relu = define("FusedRelu", "(x) => (y) { y = Relu (x) }")

# ---- Products, rows of a table ----

linear = define("Linear", "(x, w, b) => (y) { t = Transpose <perm = [1, 0]> (w)\n p = MatMul (x, t)\n y = Add (p, b) }")
linear_without_bias = define("LinearNoBias", "(x, w) => (y) { t = Transpose <perm = [1, 0]> (w)\n y = MatMul (x, t) }")
embedding = define("Embedding", "<padding_idx, scale_grad_by_freq> (i, w) => (y) { y = Gather <axis = 0> (w, i) }")

# ---- Normalisation ----

rms_norm = define(
    "RMSNorm",
    f"""<axes, eps> (x, w) => (y) {{
 square = Mul (x, x)
 axes = Constant <value_ints: ints = @axes> ()
 mean = ReduceMean <keepdims = 1> (square, axes)
 {number("e", "@eps")}
 sum = Add (mean, e)
 root = Sqrt (sum)
 normal = Div (x, root)
 y = Mul (normal, w)
}}""",
)
frozen_batch_norm = define(
    "FrozenBatchNorm",
    """<eps> (x, w, b, mean, variance) => (y) {
 y = BatchNormalization <epsilon: float = @eps> (x, w, b, mean, variance)
}""",
)

# ---- Attention ----

_softmax = """ top = ReduceMax <keepdims = 1> (s, last)
 seen = IsInf <detect_positive = 0> (top)
 zero_0 = Constant <value_float: float = 0.0> ()
 zero = CastLike (zero_0, s)
 finite = Where (seen, zero, top)
 shifted = Sub (s, finite)
 e = Exp (shifted)
 total = ReduceSum <keepdims = 1> (e, last)
 one_0 = Constant <value_float: float = 1.0> ()
 one = CastLike (one_0, s)
 some = Where (seen, one, total)
"""
_masks = {
    "": " s = Identity (raw)\n",
    "Masked": """ low_0 = Constant <value_float: float = -inf> ()
 low = CastLike (low_0, raw)
 s = Where (mask, raw, low)
""",
    "Biased": " bias = CastLike (mask, raw)\n s = Add (raw, bias)\n",
}


def _last() -> str:
    return " last = Constant <value_ints = [-1]> ()\n"


safe_softmax = {
    kind: define(
        f"{kind}SafeSoftmax",
        f"(x{', mask' if kind else ''}) => (y) {{\n raw = Identity (x)\n"
        f"{text}{_last()}{_softmax} y = Div (e, some)\n}}",
    )
    for kind, text in _masks.items()
}
attention = {
    kind: define(
        f"{kind}ScaledDotProductAttention",
        f"""<scale> (q, k, v{", mask" if kind else ""}) => (y) {{
 products = Einsum <equation = "...le,...se->...ls"> (q, k)
 {number("factor", "@scale", "q")}
 raw = Mul (products, factor)
{text}{_last()}{_softmax} p = Div (e, some)
 y = MatMul (p, v)
}}""",
    )
    for kind, text in _masks.items()
}

# ---- Recurrences, of the gates in the engine's order ----

_gates = {"LSTM": ("i, f, g, o", "i, o, f, g", 4), "GRU": ("r, z, n", "z, r, n", 3), "RNN": ("a", "a", 1)}


def _reordered(mode: str, name: str) -> str:
    """Lines of a body: a weight in ONNX's order of gates, with the dimension of directions."""
    given, wanted, count = _gates[mode]
    if count == 1:
        return f" {name}_1 = Unsqueeze ({name}, first)\n"
    parts = ", ".join(f"{name}_{part}" for part in given.split(", "))
    order = ", ".join(f"{name}_{part}" for part in wanted.split(", "))
    return (
        f" {parts} = Split <axis = 0, num_outputs = {count}> ({name})\n"
        f" {name}_0 = Concat <axis = 0> ({order})\n {name}_1 = Unsqueeze ({name}_0, first)\n"
    )


def _recurrence(mode: str, *, bias: bool) -> Local:
    states = ("h", "c") if mode == "LSTM" else ("h",)
    inputs = ["x", *states, "w", "r", *(["b", "d"] if bias else [])]
    results = [f"last_{name}" for name in states]
    body = " first = Constant <value_ints = [0]> ()\n second = Constant <value_ints = [1]> ()\n"
    body += _reordered(mode, "w") + _reordered(mode, "r")
    if bias:
        body += _reordered(mode, "b") + _reordered(mode, "d") + " bias = Concat <axis = 1> (b_1, d_1)\n"
    for name in states:
        body += f" {name}_first = Unsqueeze ({name}, first)\n"
    attributes = "hidden_size: int = @hidden_size, direction: string = @direction"
    if mode == "GRU":
        attributes += ", linear_before_reset = 1"
    if mode == "RNN":
        attributes += ", activations: strings = @activations"
    more = ", c_first" if mode == "LSTM" else ""
    outputs = "all, " + ", ".join(f"{name}_all" for name in results)
    body += f" {outputs} = {mode} <{attributes}> (x, w_1, r_1, {'bias' if bias else ''}, , h_first{more})\n"
    body += " y = Squeeze (all, second)\n"
    for name in results:
        body += f" {name} = Squeeze ({name}_all, first)\n"
    names = f"hidden_size, direction{', activations' if mode == 'RNN' else ''}"
    suffix = "" if bias else "NoBias"
    return define(f"{mode}{suffix}", f"<{names}> ({', '.join(inputs)}) => (y, {', '.join(results)}) {{\n{body}}}")


recurrence = {(mode, bias): _recurrence(mode, bias=bias) for mode in _gates for bias in (True, False)}

# ---- Activations ----


def _activation(name: str, body: str, attributes: str = "") -> Local:
    head = f"<{attributes}> " if attributes else ""
    return define(name, f"{head}(x) => (y) {{\n {body}\n}}")


_zero, _one = number("zero", "0.0"), number("one", "1.0")
hardtanh = _activation("Hardtanh", f"{number('l', '@low')}\n {number('h', '@high')}\n y = Clip (x, l, h)", "low, high")
threshold = _activation(
    "Threshold",
    f"{number('t', '@threshold')}\n {number('v', '@value')}\n below = LessOrEqual (x, t)\n y = Where (below, v, x)",
    "threshold, value",
)
hardshrink = _activation(
    "Hardshrink",
    f"{number('l', '@lambd')}\n {_zero}\n size = Abs (x)\n small = LessOrEqual (size, l)\n y = Where (small, zero, x)",
    "lambd",
)
softshrink = _activation(
    "Softshrink",
    f"""{number("l", "@lambd")}
 {_zero}
 size = Abs (x)
 small = LessOrEqual (size, l)
 sign = Sign (x)
 step = Mul (sign, l)
 rest = Sub (x, step)
 y = Where (small, zero, rest)""",
    "lambd",
)
hardsigmoid = _activation("Hardsigmoid", "y = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)")
silu = _activation("Silu", "s = Sigmoid (x)\n y = Mul (x, s)")
logsigmoid = _activation("LogSigmoid", "n = Neg (x)\n s = Softplus (n)\n y = Neg (s)")
softplus = _activation(
    "SoftplusBeta",
    f"""{number("b", "@beta")}
 {number("t", "@threshold")}
 scaled = Mul (x, b)
 s = Softplus (scaled)
 soft = Div (s, b)
 above = Greater (scaled, t)
 y = Where (above, x, soft)""",
    "beta, threshold",
)
glu = _activation(
    "Glu", "a, b = Split <axis: int = @axis, num_outputs = 2> (x)\n s = Sigmoid (b)\n y = Mul (a, s)", "axis"
)

# ---- Elements ----

expm1 = _activation("Expm1", f"{_one}\n e = Exp (x)\n y = Sub (e, one)")
log1p = _activation("Log1p", f"{_one}\n s = Add (x, one)\n y = Log (s)")
exp2 = _activation("Exp2", f"{number('two', '2.0')}\n y = Pow (two, x)")
log2 = _activation("Log2", f"{number('k', '0.6931471805599453')}\n l = Log (x)\n y = Div (l, k)")
log10 = _activation("Log10", f"{number('k', '2.302585092994046')}\n l = Log (x)\n y = Div (l, k)")
rsqrt = _activation("Rsqrt", "r = Sqrt (x)\n y = Reciprocal (r)")
trunc = _activation("Trunc", "s = Sign (x)\n size = Abs (x)\n f = Floor (size)\n y = Mul (s, f)")
frac = _activation("Frac", "s = Sign (x)\n size = Abs (x)\n f = Floor (size)\n t = Mul (s, f)\n y = Sub (x, t)")
isfinite = _activation("IsFinite", "n = IsNaN (x)\n i = IsInf (x)\n wrong = Or (n, i)\n y = Not (wrong)")


def _of_two(name: str, body: str) -> Local:
    return define(name, f"(a, b) => (y) {{\n {body}\n}}")


clamp_min = _of_two("ClampMin", "y = Max (a, b)")
clamp_max = _of_two("ClampMax", "y = Min (a, b)")
clamp_between = define(
    "ClampBetween", "(x, low, high) => (y) {\n at_least = Max (x, low)\n y = Min (at_least, high)\n}"
)
floor_divide = _of_two("FloorDivide", "q = Div (a, b)\n y = Floor (q)")
remainder = _of_two("Remainder", "q = Div (a, b)\n f = Floor (q)\n p = Mul (f, b)\n y = Sub (a, p)")
hypot = _of_two("Hypot", "s = Mul (a, a)\n t = Mul (b, b)\n u = Add (s, t)\n y = Sqrt (u)")
logaddexp = _of_two(
    "Logaddexp", "top = Max (a, b)\n d = Sub (a, b)\n m = Abs (d)\n n = Neg (m)\n s = Softplus (n)\n y = Add (top, s)"
)
lerp = define("Lerp", "(a, b, w) => (y) {\n d = Sub (b, a)\n p = Mul (d, w)\n y = Add (a, p)\n}")
addcmul = define(
    "Addcmul",
    f"<value> (x, a, b) => (y) {{\n {number('v', '@value')}\n p = Mul (a, b)\n q = Mul (p, v)\n y = Add (x, q)\n}}",
)
addcdiv = define(
    "Addcdiv",
    f"<value> (x, a, b) => (y) {{\n {number('v', '@value')}\n p = Div (a, b)\n q = Mul (p, v)\n y = Add (x, q)\n}}",
)

# ---- Reductions ----

_variance = f"""axes = Constant <value_ints: ints = @axes> ()
 shape = Shape (x)
 lengths = Gather <axis = 0> (shape, axes)
 n_0 = ReduceProd <keepdims = 0> (lengths)
 n = CastLike (n_0, x)
 {number("c", "@correction")}
 freedom = Sub (n, c)
 mean = ReduceMean <keepdims = 1> (x, axes)
 centred = Sub (x, mean)
 square = Mul (centred, centred)
 total = ReduceSum <keepdims: int = @keepdims> (square, axes)
"""
var = _activation("Var", _variance + " y = Div (total, freedom)", "axes, keepdims, correction")
std = _activation("Std", _variance + " v = Div (total, freedom)\n y = Sqrt (v)", "axes, keepdims, correction")
norm = _activation(
    "Norm",
    f"""axes = Constant <value_ints: ints = @axes> ()
 {number("p", "@p")}
 {_one}
 size = Abs (x)
 powers = Pow (size, p)
 total = ReduceSum <keepdims: int = @keepdims> (powers, axes)
 q = Div (one, p)
 y = Pow (total, q)""",
    "axes, keepdims, p",
)

# ---- Pooling of windows of different sizes ----

adaptive_avg_pool = define(
    "AdaptiveAvgPool2d",
    "(x, rows, columns) => (y) {\n narrow = MatMul (x, columns)\n y = MatMul (rows, narrow)\n}",
)
adaptive_max_pool = define(
    "AdaptiveMaxPool2d",
    """(x, rows, columns) => (y) {
 axes = Constant <value_ints = [3, 5]> ()
 low = Gather <axis = 2> (x, rows)
 windows = Gather <axis = 4> (low, columns)
 y = ReduceMax <keepdims = 0> (windows, axes)
}""",
)
