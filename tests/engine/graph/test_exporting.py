"""Modules of the engine as ONNX: onnxruntime computes the same, and what is loaded trains to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import models, nn, optim
from chainrule.engine.autograd import Function
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.exporting import export
from chainrule.engine.graph.loading import load
from chainrule.engine.graph.translations import local
from chainrule.engine.models.resnet import BasicBlock, Bottleneck, ResNet
from chainrule.engine.nn import functional as F
from chainrule.engine.random import Generator, using

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Draw = Callable[[int], Any]


def images(*shape: int) -> Draw:
    return lambda n: np.random.default_rng(n).standard_normal((n, *shape)).astype(np.float32)


def tokens(length: int, vocabulary: int) -> Draw:
    return lambda n: np.random.default_rng(n).integers(0, vocabulary, (n, length))


def family(name: str, **config: object) -> Callable[[], nn.Module]:
    return lambda: models.build(name, config, generator=Generator(1))


class NarrowResNet(ResNet):
    """An eighth of the channels, in as many blocks."""

    def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        if planes == 64:
            self.inplanes = 8
            self.conv1 = nn.Conv2d(3, 8, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(8)
        return super()._make_layer(block, planes // 8, blocks, stride, dilate)


def narrow(block: Any, layers: tuple[int, ...]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with using(Generator(1)):
            made = NarrowResNet(block, layers)
            made.fc = nn.Linear(64 * block.expansion, 10)
        return made

    return make


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Draw]] = {
    "mlp": (family("mlp", hidden=[32, 16]), images(64)),
    "small_cnn": (family("small_cnn", dropout=0.3), images(1, 8, 8)),
    "resnet18": (narrow(BasicBlock, (2, 2, 2, 2)), images(3, 32, 32)),
    "resnet50": (narrow(Bottleneck, (3, 4, 6, 3)), images(3, 32, 32)),
    "mobilenet_v2": (family("mobilenet_v2", num_classes=10, width_mult=0.25), images(3, 32, 32)),
    "gpt": (family("gpt", vocab_size=50, context=16, dim=32, layers=2), tokens(16, 50)),
    "gpt_dropout": (family("gpt", vocab_size=50, context=16, dim=32, layers=2, dropout=0.1), tokens(16, 50)),
    "gpt_untied": (family("gpt", vocab_size=50, context=16, dim=32, layers=1, tie_weights=False), tokens(16, 50)),
}


class Apply(nn.Module):
    """A function as a module, with a weight."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(cr.tensor([1.5]))

    def forward(self, x: Any) -> Any:
        return self.function(x * self.scale)


class First(nn.Module):
    """The first result of a module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x)[0]


class SelfAttention(nn.Module):
    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Any) -> Any:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


rows, pixels, series = images(6), images(4, 9, 9), images(5, 8)
LAYERS: dict[str, tuple[Callable[[], nn.Module], Draw]] = {
    "linear": (lambda: nn.Linear(6, 3), rows),
    "linear_3d": (lambda: nn.Linear(8, 3), series),
    "conv1d": (lambda: nn.Conv1d(5, 6, 3, padding=1, stride=2), series),
    "conv1d_same": (lambda: nn.Conv1d(5, 6, 4, padding="same"), series),
    "conv2d_groups": (lambda: nn.Conv2d(4, 8, 3, groups=2, dilation=2, padding=1), pixels),
    "conv2d_reflect": (lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), pixels),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(5, 3, 3, stride=2, output_padding=1), series),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), pixels),
    "batch_norm1d": (lambda: nn.Sequential(nn.BatchNorm1d(6)), rows),
    "batch_norm2d_relu": (
        lambda: nn.Sequential(nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU()),
        pixels,
    ),
    "batch_norm2d_relu_at_once": (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), pixels),
    "layer_norm": (lambda: nn.LayerNorm(8), series),
    "layer_norm_two": (lambda: nn.LayerNorm([5, 8], bias=False), series),
    "group_norm": (lambda: nn.GroupNorm(2, 4), pixels),
    "instance_norm": (lambda: nn.InstanceNorm2d(4, affine=True), pixels),
    "rms_norm": (lambda: nn.RMSNorm(8), series),
    "local_response": (lambda: nn.LocalResponseNorm(3), pixels),
    "embedding": (lambda: nn.Embedding(20, 4), tokens(7, 20)),
    "embedding_padding": (lambda: nn.Embedding(20, 4, padding_idx=0), tokens(7, 20)),
    "lstm": (lambda: First(nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True)), series),
    "gru": (lambda: First(nn.GRU(8, 6, batch_first=True)), series),
    "gru_no_bias": (lambda: First(nn.GRU(8, 6, batch_first=True, bias=False)), series),
    "rnn_relu": (lambda: First(nn.RNN(8, 6, nonlinearity="relu", batch_first=True)), series),
    "attention": (lambda: SelfAttention(need_weights=False), series),
    "attention_weights": (lambda: SelfAttention(need_weights=True), series),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), series),
    "max_pool1d": (lambda: nn.MaxPool1d(2), series),
    "max_pool2d_ceil": (lambda: nn.MaxPool2d(2, ceil_mode=True), pixels),
    "avg_pool2d": (lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), pixels),
    "adaptive_avg_pool": (lambda: nn.AdaptiveAvgPool2d(4), pixels),
    "adaptive_max_pool": (lambda: nn.AdaptiveMaxPool2d(4), pixels),
    "global_pool": (lambda: nn.AdaptiveAvgPool2d(1), pixels),
    "upsample_nearest": (lambda: nn.Upsample(scale_factor=2), pixels),
    "upsample_bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), pixels),
    "upsample_size": (lambda: nn.Upsample(size=(13, 11), mode="bilinear", align_corners=True), pixels),
    "dropout2d": (lambda: nn.Dropout2d(0.4), pixels),
    "alpha_dropout": (lambda: nn.AlphaDropout(0.4), rows),
    "pixel_reshape": (lambda: Apply(lambda x: x.reshape(len(x), 2, 2, -1).transpose(1, 3).flatten(1)), pixels),
    "prelu": (lambda: nn.PReLU(4), pixels),
    "pads": (lambda: Apply(lambda x: F.pad(x, (1, 2, 0, 1), value=0.5)), pixels),
    "replicate": (lambda: nn.ReplicationPad2d(2), pixels),
    "stack_split": (lambda: Apply(lambda x: cr.stack([2 * part for part in x.split(3, 1)], 2)), rows),
    "chunk_cat": (lambda: Apply(lambda x: cr.cat(x.chunk(2, -1)[::-1], -1)), rows),
    "index": (lambda: Apply(lambda x: x[:, 1, ::2, None]), pixels),
    "index_list": (lambda: Apply(lambda x: x[:, [3, 0, 0]]), pixels),
    "where_mask": (lambda: Apply(lambda x: cr.where(x > 0, x, x * x).masked_fill(x < -1, 0.25)), rows),
    "reductions": (lambda: Apply(lambda x: x.sum(1) + x.mean(1) + x.var(1) + x.amax(1) + x.logsumexp(1)), rows),
    "std_norm": (lambda: Apply(lambda x: x.std(1) + x.norm(dim=1)), rows),
    "max_values": (lambda: Apply(lambda x: x.max(1).values), rows),
    "topk": (lambda: Apply(lambda x: x.topk(3, 1).values), rows),
    "cumsum": (lambda: Apply(lambda x: x.cumsum(1)), rows),
    "einsum": (lambda: Apply(lambda x: cr.einsum("nij,nkj->nik", x, x)), series),
    "matmul": (lambda: Apply(lambda x: x @ x.mT), series),
    "argmax_gather": (lambda: Apply(lambda x: x.gather(1, x.argmax(1, keepdim=True))), rows),
    "state_of_the_batch": (lambda: Apply(lambda x: cr.cat([x, cr.zeros(len(x), 2)], 1)), rows),
    "by_the_batch": (lambda: Apply(lambda x: x.sum(0, keepdim=True) / len(x) + x), rows),
    "in_place": (lambda: Apply(lambda x: (x + 1).mul_(2).relu_()), rows),
    "arithmetic": (lambda: Apply(lambda x: (x.abs() + 1).sqrt().log() / (2 - x.sin()) ** 2 - 3 % (x.exp() + 1)), rows),
    "softmaxes": (lambda: Apply(lambda x: x.softmax(1) + x.log_softmax(1)), rows),
    "detach": (lambda: Apply(lambda x: x * x.detach()), rows),
    "roll_flip": (lambda: Apply(lambda x: x.roll(2, 1).flip(1).repeat(1, 2)), rows),
    **{
        name: (lambda function=function: Apply(function), rows)  # type: ignore[misc]
        for name, function in {
            "relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu, "elu": F.elu, "selu": F.selu,
            "celu": F.celu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, "tanh"), "silu": F.silu,
            "mish": F.mish, "softplus": F.softplus, "logsigmoid": F.logsigmoid, "hardswish": F.hardswish,
            "hardsigmoid": F.hardsigmoid, "hardtanh": F.hardtanh, "hardshrink": F.hardshrink,
            "softshrink": F.softshrink, "softsign": F.softsign, "tanhshrink": F.tanhshrink, "glu": F.glu,
            "threshold": lambda x: F.threshold(x, 0.1, -1.0), "clamp": lambda x: x.clamp(-1, 0.5),
            "expm1": cr.expm1, "log1p": lambda x: cr.log1p(x.abs()), "erf": cr.erf,
        }.items()
    },
}  # fmt: skip
WIDE: dict[str, tuple[Callable[[], nn.Module], Draw]] = {
    name: (family(name, num_classes=10), images(3, 32, 32)) for name in ("resnet18", "resnet50", "mobilenet_v2")
}
EVERYTHING = {**FAMILIES, **LAYERS, **{f"{name}, as wide as it is": made for name, made in WIDE.items()}}
NAMES = [
    pytest.param(name, marks=[pytest.mark.whole] * (name.partition(",")[0] in WIDE and "," in name))
    for name in EVERYTHING
]


def run(content: bytes, x: Any) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_computes_the_same_for_another_batch(name: str) -> None:
    make, draw = EVERYTHING[name]
    module = make().eval()
    content = export(module, draw(2))
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    x = draw(7)
    with cr.no_grad():
        expected = module(cr.tensor(x)).numpy()
    np.testing.assert_allclose(run(content, x), expected, rtol=1e-4, atol=1e-5)


def trained(module: nn.Module, draw: Draw) -> dict[str, bytes]:
    """The state after three steps of SGD."""
    module.train()
    parameters = list(module.parameters())
    optimizer = optim.SGD(parameters, lr=0.05, momentum=0.9) if parameters else None
    state: dict[str, bytes] = {}
    with using(Generator(7)):
        for step in range(3):
            y = module(cr.tensor(draw(5 + step)))
            state[f"output {step}"] = y.detach().numpy().tobytes()
            if optimizer is not None:
                optimizer.zero_grad()
                (y * y).mean().backward()
                optimizer.step()
    return state | {key: value.numpy().tobytes() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_trains_to_the_same_bits(name: str) -> None:
    make, draw = EVERYTHING[name]
    module = make()
    loaded = load(export(module, draw(2)))
    assert list(loaded.state_dict()) == list(module.state_dict())
    assert [key for key, _ in loaded.named_parameters()] == [key for key, _ in module.named_parameters()]
    expected, found = trained(module, draw), trained(loaded, draw)
    assert [key for key in expected if found[key] != expected[key]] == []


def test_nothing_of_the_module_changes() -> None:
    module = family("small_cnn", dropout=0.5)().eval()
    before = {key: value.numpy().copy() for key, value in module.state_dict().items()}
    cr.manual_seed(3)
    export(module, images(1, 8, 8)(2))
    drawn = cr.rand(3)
    cr.manual_seed(3)
    assert drawn.tolist() == cr.rand(3).tolist()
    assert not any(part.training for part in module.modules())
    assert all(np.array_equal(value.numpy(), before[key]) for key, value in module.state_dict().items())


def test_a_model_says_who_wrote_it_and_how_its_batch_is_called() -> None:
    module = family("small_cnn", dropout=0.5)()
    model = onnx.load_from_string(export(module, images(1, 8, 8)(1), input_names=["image"], output_names=["logits"]))
    assert model.producer_name == "chainrule"
    assert model.producer_version
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [x.name for x in model.graph.input] == ["image"]
    assert [x.name for x in model.graph.output] == ["logits"]
    assert [x.name for x in model.graph.initializer] == list(module.state_dict())
    assert {"BatchNormalization", "Dropout"} <= {node.op_type for node in model.graph.node}
    assert model.graph.node[0].name == "conv1/Conv"


@pytest.mark.parametrize("name", local.locals_)
def test_chainrules_own_operators_can_be_loaded(name: str) -> None:
    from chainrule.engine.graph.registry import find

    assert not isinstance(find(local.DOMAIN, name, local.VERSION), str)


class Double(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * 2


def _write_through_a_view(x: Any) -> Any:
    y = x * 2
    y[:, 0] = 0.0
    return y


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "branches": (
        lambda x: x.exp() if x.data[0, 0] > x.data[2, 5] else x.sin(),
        "depends on the input's values",
    ),
    "random": (lambda x: x + cr.rand(6), "random draws"),
    "values": (lambda x: x * float(x.data.sum()), "not the same for every input"),
    "own": (Double.apply, "Double.apply"),
    "nonzero": (lambda x: x[x > 0], "not the same|no multiple"),
    "view": (_write_through_a_view, "through a view"),
    "median": (lambda x: x.median(1).values, '"median"|"pick"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_graph_can_say_is_refused_by_name(name: str) -> None:
    function, message = REFUSED[name]
    module = nn.Sequential(nn.Identity(), Apply(function))
    with pytest.raises(GraphError, match=message) as caught:
        export(module, rows(3))
    assert 'module "1"' in str(caught.value) or "the module itself" in str(caught.value)


READS: dict[str, Callable[[Any], Any]] = {
    "item": lambda x: x * x.sum().item(),
    "bool": lambda x: x.exp() if (x > -100).all() else x,
    "float": lambda x: x * float(x.detach().amax()),
    "int": lambda x: x.narrow(1, 0, int(x.isfinite().sum(1).amin())),
    "tolist": lambda x: x * max(map(max, x.detach().tolist())),
    "numpy": lambda x: x * np.abs(x.detach().numpy()).max(),
    "a function of numpy": lambda x: x * np.sign(np.abs(np.mean(x.detach()))),
    "array": lambda x: x + cr.tensor(np.asarray(x.detach())).sum(),
    "index": lambda x: x[:, x.isfinite().sum(1).amin() - 1],
    "range": lambda x: sum((x * i for i in range(x.isfinite().sum(1).amin())), x),
    "equal": lambda x: x if cr.equal(x, x + 1) else x.exp(),
    "allclose": lambda x: x if cr.allclose(x, x) else x.exp(),
    "in": lambda x: x.exp() if 7.5 in x else x,
    "a comparison": lambda x: x.exp() if x.sum() < 1e9 else x,
}
"""Each is the same in both calls of the module, or may be."""


@pytest.mark.parametrize("name", READS)
def test_elements_that_are_read_are_refused_with_their_line(name: str) -> None:
    module = nn.Sequential(nn.Identity(), Apply(READS[name]))
    with pytest.raises(GraphError, match=r'module "1": elements of a tensor that depends on the input are') as caught:
        export(module, rows(3))
    assert f'{__file__}, line {READS[name].__code__.co_firstlineno}: "{name}": lambda x' in str(caught.value)


class Reading(nn.Module):
    """Reads what it keeps."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        self.weight, self.kept = nn.Parameter(cr.tensor([2.0])), kept
        self.register_buffer("size", cr.tensor(2.0))

    def forward(self, x: Any) -> Any:
        return self.weight * x * (getattr(self, self.kept) + 1).item()


def test_parameters_that_are_read_are_refused_and_buffers_said() -> None:
    with pytest.raises(GraphError, match='a tensor that depends on the parameter "weight" are read'):
        export(Reading("weight"), rows(3))
    with pytest.warns(UserWarning, match='elements of the buffer "size" are read'):
        content = export(Reading("size"), rows(3))
    np.testing.assert_allclose(run(content, rows(2)), 6 * rows(2), rtol=1e-6)


def test_what_is_known_without_the_input_may_be_read() -> None:
    module = Apply(lambda x: x * float(cr.arange(4).sum()) * x.shape[1] + cr.tensor(3.0).item())
    np.testing.assert_allclose(run(export(module, rows(3)), rows(2)), 1.5 * 36 * rows(2) + 3, rtol=1e-6)


class Moody(nn.Module):
    """Computes something else in evaluation."""

    def __init__(self, trains: Callable[[Any], Any], evaluates: Callable[[Any], Any]) -> None:
        super().__init__()
        self.trains, self.evaluates = trains, evaluates

    def forward(self, x: Any) -> Any:
        return (self.trains if self.training else self.evaluates)(x)


MOODS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], str]] = {
    "operations": (lambda x: x.exp(), lambda x: x.sin(), 'module "1": "exp" is computed in training, and "sin" in'),
    "more": (lambda x: x.exp(), lambda x: x.exp().sin(), '"nothing more" is computed in training|nothing more'),
    "numbers": (lambda x: x.clamp(0, 1), lambda x: x.clamp(0, 2), "with other arguments in training"),
    "constants": (lambda x: x * cr.tensor(2.0), lambda x: x * cr.tensor(3.0), "something else in evaluation"),
    "results": (lambda x: (x, x + 1), lambda x: x, "gives 2 tensors in training and 1 in evaluation"),
    "shapes": (lambda x: x, lambda x: x.sum(1), "is computed in"),
    "drops always": (lambda x: F.dropout(x), lambda x: F.dropout(x), "in evaluation"),
}


@pytest.mark.parametrize("name", MOODS)
@pytest.mark.parametrize("training", [True, False])
def test_what_is_something_else_in_evaluation_is_refused(name: str, training: bool) -> None:
    trains, evaluates, message = MOODS[name]
    module = nn.Sequential(nn.Identity(), Moody(trains, evaluates)).train(training)
    with pytest.raises(GraphError, match=message):
        export(module, rows(3))
    assert all(part.training is training for part in module.modules())


def test_modes_that_come_to_the_same_are_taken() -> None:
    module = nn.Sequential(Moody(lambda x: x + x, lambda x: 2 * x), nn.BatchNorm1d(6), nn.Dropout(0.5)).eval()
    content = export(module, rows(3))
    np.testing.assert_allclose(run(content, rows(4)), module(cr.tensor(rows(4))).numpy(force=True), rtol=1e-5)


def test_arguments_that_do_not_fit_are_refused() -> None:
    module = nn.Linear(6, 3)
    with pytest.raises(GraphError, match="opset 9"):
        export(module, rows(2), opset=9)
    with pytest.raises(GraphError, match="input_names"):
        export(module, rows(2), input_names=["a", "b"])
    with pytest.raises(GraphError, match="weight"):
        export(module, rows(2), input_names=["weight"])
