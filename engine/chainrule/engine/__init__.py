"""The autograd engine of chainrule: tensors, gradients, layers, optimizers. Import it as `cr`."""

import warnings

from chainrule.engine import autograd, data, io, kernels, models, nn, optim, random, utils
from chainrule.engine.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from chainrule.engine.creation import (
    as_tensor,
    asarray,
    empty,
    empty_like,
    eye,
    from_numpy,
    full,
    full_like,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    zeros,
    zeros_like,
)
from chainrule.engine.dtypes import (
    bfloat16,
    can_cast,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
)
from chainrule.engine.dtypes import bool_ as bool
from chainrule.engine.errors import (
    ArgumentError,
    AutogradError,
    BoundsError,
    ChainruleError,
    ConfigError,
    DimensionError,
    DivisionError,
    DTypeError,
    FormatError,
    ShapeError,
    StateDictError,
    TargetError,
    UnknownFamilyError,
    UnsupportedError,
    WeightsNotFoundError,
)
from chainrule.engine.formatting import get_printoptions, printoptions, set_printoptions
from chainrule.engine.functions.arithmetic import *
from chainrule.engine.functions.arranging import *
from chainrule.engine.functions.choosing import *
from chainrule.engine.functions.comparison import *
from chainrule.engine.functions.conversion import *
from chainrule.engine.functions.drawing import (
    bernoulli,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from chainrule.engine.functions.einsum import *
from chainrule.engine.functions.joining import *
from chainrule.engine.functions.linalg import *
from chainrule.engine.functions.masking import *
from chainrule.engine.functions.ordering import *
from chainrule.engine.functions.reduction import *
from chainrule.engine.functions.shapes import *
from chainrule.engine.layout import channels_last, contiguous_format, device, preserve_format
from chainrule.engine.random import Generator, default_generator, initial_seed, manual_seed, seed
from chainrule.engine.ranges import arange, linspace, logspace, tril_indices, triu_indices
from chainrule.engine.tensor import Tensor
from chainrule.engine.threads import get_num_threads, set_num_threads

__all__ = [
    "ArgumentError",
    "AutogradError",
    "BoundsError",
    "ChainruleError",
    "ConfigError",
    "DTypeError",
    "DimensionError",
    "FormatError",
    "Generator",
    "ShapeError",
    "StateDictError",
    "TargetError",
    "Tensor",
    "UnknownFamilyError",
    "UnsupportedError",
    "WeightsNotFoundError",
    "abs",
    "add",
    "allclose",
    "amax",
    "amin",
    "arange",
    "argmax",
    "argmin",
    "as_tensor",
    "autograd",
    "bool",
    "cat",
    "clamp",
    "data",
    "default_generator",
    "div",
    "empty",
    "empty_like",
    "enable_grad",
    "eq",
    "equal",
    "exp",
    "eye",
    "flatten",
    "float32",
    "float64",
    "from_numpy",
    "full",
    "full_like",
    "ge",
    "get_num_threads",
    "gt",
    "initial_seed",
    "int32",
    "int64",
    "io",
    "is_grad_enabled",
    "isnan",
    "kernels",
    "le",
    "linspace",
    "log",
    "log_softmax",
    "logsumexp",
    "lt",
    "manual_seed",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "models",
    "mul",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pow",
    "rand",
    "randint",
    "randn",
    "random",
    "randperm",
    "relu",
    "reshape",
    "set_grad_enabled",
    "set_num_threads",
    "sigmoid",
    "sign",
    "softmax",
    "sqrt",
    "squeeze",
    "stack",
    "sub",
    "sum",
    "tanh",
    "tensor",
    "transpose",
    "unsqueeze",
    "where",
    "zeros",
    "zeros_like",
]

# Infinities and nan are values here, as in PyTorch, and log(0) is no reason for numpy to warn.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"chainrule\.engine\.")
