"""What a file becomes: names, roles of initialisers, folding, modes, architecture and weights apart."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import chainrule.engine as cr
from chainrule.engine import graph, nn, optim
from tests.engine.graph.making import INT64, content, draw, model, node, value


def mlp() -> bytes:
    return content(
        [
            node("Gemm", "x fc1.weight fc1.bias", "h", transB=1),
            node("BatchNormalization", "h bn.weight bn.bias bn.running_mean bn.running_var", "n"),
            node("Relu", "n", "r"),
            node("Gemm", "r fc2.weight", "y", "last", transB=1),
        ],
        {
            "fc1.weight": draw(5, 4),
            "fc1.bias": draw(5),
            "bn.weight": np.ones(5, np.float32),
            "bn.bias": np.zeros(5, np.float32),
            "bn.running_mean": draw(5, seed=1),
            "bn.running_var": np.full(5, 2, np.float32),
            "fc2.weight": draw(3, 5),
        },
    )


def tensor_of(result: Any) -> cr.Tensor:
    assert isinstance(result, cr.Tensor)
    return result


# ---- Names and roles ----


def test_weights_have_the_names_of_the_file() -> None:
    module = graph.load(mlp())
    assert set(dict(module.named_parameters())) == {"fc1.weight", "fc1.bias", "bn.weight", "bn.bias", "fc2.weight"}
    assert set(dict(module.named_buffers())) == {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert module.get_parameter("fc1.weight").shape == (5, 4)
    assert module.inputs == (graph.TensorSpec("x", np.dtype("float32"), ("N", 4)),)
    assert [spec.name for spec in module.outputs] == ["y"]
    assert "fc1" in repr(module)


def test_numbers_of_formulas_are_not_learnt() -> None:
    weights = {"scale": draw(4), "onnx::Mul_3": np.float32(2), "low": np.float32(-1), "shape": np.array([-1, 2, 2])}
    module = graph.load(
        content(
            [
                node("Mul", "x scale", "a"),
                node("Mul", "a onnx::Mul_3", "b"),
                node("Clip", "b low", "c"),
                node("Reshape", "c shape", "y"),
            ],
            weights,
        )
    )
    assert [name for name, _ in module.named_parameters()] == ["scale"]


def test_what_no_gradient_reaches_is_not_learnt() -> None:
    nodes = [node("Greater", "x mask", "a"), node("Where", "a x zero", "b"), node("Add", "b bias", "y")]
    module = graph.load(content(nodes, {"mask": draw(4), "zero": np.float32(0), "bias": draw(4)}))
    assert {name for name, _ in module.named_parameters()} == {"bias", "zero"}


def test_a_mask_with_infinities_is_kept_but_not_learnt() -> None:
    mask = np.where(np.arange(4) < 2, 0, -np.inf).astype(np.float32)
    file = content([node("Add", "x mask", "a"), node("Softmax", "a", "y")], {"mask": mask})
    for module in (graph.load(file), graph.load(graph.split(file)[0])):
        assert list(module.parameters()) == []
        assert [name for name, _ in module.named_buffers()] == ["mask"]


def test_buffers_can_be_named() -> None:
    file = content([node("Add", "x pe", "a"), node("Mul", "a w", "y")], {"pe": draw(1, 4), "w": draw(4)})
    architecture, weights = graph.split(file, buffers=["pe"])
    module = graph.load(architecture)
    module.load_state_dict(weights)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    assert [name for name, _ in module.named_buffers()] == ["pe"]


def test_a_folded_transpose_gets_its_name_and_shape_back() -> None:
    """PyTorch's exporter with constant folding writes the transpose of a Linear's weight under a made-up name."""
    w = draw(3, 4)
    nodes = [node("MatMul", "x onnx::MatMul_7", "h", "/fc/MatMul"), node("Add", "fc.bias h", "y", "/fc/Add")]
    file = content(nodes, {"onnx::MatMul_7": w.T, "fc.bias": draw(3)}, producer="pytorch")
    module = graph.load(file)
    np.testing.assert_array_equal(module.state_dict()["fc.weight"].numpy(), w)
    architecture, weights = graph.split(file)
    np.testing.assert_array_equal(weights["fc.weight"], w)
    x = draw(2, 4)
    joined = graph.join(architecture, weights)
    (y,) = onnxruntime.InferenceSession(joined, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(tensor_of(module(cr.tensor(x))).detach().numpy(), y, rtol=1e-6, atol=1e-6)


def test_names_that_no_module_can_have_are_changed() -> None:
    nodes = [node("Mul", "x training", "a"), node("Add", "a b..c", "d"), node("Add", "d b", "y")]
    module = graph.load(content(nodes, {"training": draw(4), "b..c": draw(4), "b": draw(4)}))
    assert set(dict(module.named_parameters())) == {"training_", "b._.c", "b"}
    assert module.names["training_"] == "training"
    module.train(False)
    other = graph.load(content(nodes, {"training": draw(4), "b..c": draw(4), "b": draw(4)}))
    assert other.load_state_dict(module.state_dict()) == ([], [])


def test_a_weight_in_two_places_is_one_parameter() -> None:
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w", "y")]
    module = graph.load(content(nodes, {"w": draw(4, 4)}))
    assert len(list(module.parameters())) == 1
    tensor_of(module(cr.tensor(draw(2, 4)))).sum().backward()
    x, w = cr.tensor(draw(2, 4)), cr.tensor(draw(4, 4), requires_grad=True)
    (x @ w @ w).sum().backward()
    grad = next(module.parameters()).grad
    assert grad is not None
    assert w.grad is not None
    np.testing.assert_array_equal(grad.numpy(), w.grad.numpy())


def test_equal_vectors_of_an_export_for_inference_are_learnt_apart() -> None:
    nodes = [node("Identity", "a.bias", "b.bias"), node("Add", "x a.bias", "h"), node("Add", "h b.bias", "y")]
    file = content(nodes, {"a.bias": draw(4)})
    module = graph.load(file)
    assert [name for name, _ in module.named_parameters()] == ["a.bias", "b.bias"]
    architecture, weights = graph.split(file)
    assert list(weights) == ["a.bias", "b.bias"]
    assert list(graph.load(architecture).state_dict()) == ["a.bias", "b.bias"]


def test_a_shared_matrix_has_both_names_and_one_memory() -> None:
    nodes = [
        node("Identity", "a.weight", "b.weight"),
        node("MatMul", "x a.weight", "h"),
        node("MatMul", "h b.weight", "y"),
    ]
    module = graph.load(content(nodes, {"a.weight": draw(4, 4)}))
    assert list(module.state_dict()) == ["a.weight", "b.weight"]
    assert [name for name, _ in module.named_parameters()] == ["a.weight"]


# ---- Modes ----


def test_batch_norm_follows_the_mode_of_the_module() -> None:
    module, reference = graph.load(mlp()), nn.BatchNorm1d(5)
    inner = module.get_submodule("bn")
    reference.load_state_dict(inner.state_dict())
    x = cr.tensor(draw(6, 4))
    h = nn.functional.linear(x, module.get_parameter("fc1.weight"), module.get_parameter("fc1.bias"))
    for mode in (True, False):
        module.train(mode)
        reference.train(mode)
        expected = nn.functional.linear(reference(h).relu(), module.get_parameter("fc2.weight"))
        np.testing.assert_array_equal(tensor_of(module(x)).detach().numpy(), expected.detach().numpy())
    for name, buffer in reference.named_buffers():
        np.testing.assert_array_equal(inner.get_buffer(name).numpy(), buffer.numpy())


def test_statistics_of_a_batch_can_be_collected_by_name() -> None:
    module = graph.load(mlp())
    before = module.get_buffer("bn.running_mean").numpy().copy()
    with nn.collect_batch_statistics(module) as statistics:
        module(cr.tensor(draw(6, 4)))
    assert set(statistics) == {"bn.running_mean", "bn.running_var"}
    np.testing.assert_array_equal(module.get_buffer("bn.running_mean").numpy(), before)


@pytest.mark.parametrize("opset", [7, 10, 13])
def test_dropout_follows_the_mode_and_the_generator(opset: int) -> None:
    if opset < 12:
        file = content([node("Dropout", "x", "y", ratio=0.25)], opset=opset)
    else:
        weights = {"ratio": np.float32(0.25), "training": np.array(False)}
        file = content([node("Dropout", "x ratio training", "y")], weights, opset=opset)
    module, x = graph.load(file), cr.ones(100, 4)
    with cr.random.using(cr.Generator(3)):
        y = tensor_of(module(x)).numpy()
    with cr.random.using(cr.Generator(3)):
        np.testing.assert_array_equal(y, nn.functional.dropout(x, 0.25, True).numpy())
    np.testing.assert_array_equal(tensor_of(module.eval()(x)).numpy(), x.numpy())


def test_it_trains() -> None:
    module, x, target = graph.load(mlp()), cr.tensor(draw(16, 4)), cr.tensor(draw(16, 3))
    optimizer, losses = optim.SGD(module.parameters(), lr=0.1), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = ((tensor_of(module(x)) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# ---- What modules can do ----


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
def test_a_copy_is_apart(copied: Any) -> None:
    module = graph.load(mlp()).eval()
    x = cr.tensor(draw(2, 4))
    y = tensor_of(module(x)).detach().numpy().copy()
    other = copied(module)
    assert not other.training
    with cr.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.0)
    np.testing.assert_array_equal(tensor_of(other(x)).detach().numpy(), y)
    assert not tensor_of(module(x)).numpy(force=True).any()


def test_hooks_and_grad_memory_work() -> None:
    module, calls = graph.load(mlp()), []
    module.register_forward_hook(lambda *args: calls.append("graph"))
    module.get_submodule("bn").register_forward_hook(lambda *args: calls.append("bn"))
    memory = np.zeros((3, 5), np.float32)
    weight = module.get_parameter("fc2.weight")
    weight.grad_memory = memory
    tensor_of(module(cr.tensor(draw(6, 4)))).sum().backward()
    assert calls == ["bn", "graph"]
    assert weight.grad is not None
    assert weight.grad.data is memory or np.shares_memory(weight.grad.data, memory)


def test_state_that_is_assigned_is_used() -> None:
    module = graph.load(mlp()).eval()
    state = {name: cr.zeros_like(v) for name, v in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    assert not tensor_of(module(cr.tensor(draw(2, 4)))).numpy(force=True).any()


def test_inputs_by_name_and_outputs_by_name() -> None:
    nodes = [node("Sub", "a b", "y"), node("Add", "a b", "z")]
    module = graph.load(content(nodes, inputs=[value("a"), value("b")], outputs=("y", "z")))
    a, b = cr.tensor(draw(2, 4)), cr.tensor(draw(2, 4, seed=1))
    result = module(a, b=b)
    assert list(result) == ["y", "z"]
    np.testing.assert_array_equal(result["y"].numpy(), (a - b).numpy())
    for wrong in ((a,), (a, b, a)):
        with pytest.raises(graph.GraphError, match="takes 2 inputs"):
            module(*wrong)
    with pytest.raises(graph.GraphError, match="takes 2 inputs"):
        module(a, c=b)


def test_inputs_are_compared_with_what_the_file_says() -> None:
    module = graph.load(content([node("Gather", "w i", "y")], {"w": draw(5, 3)}, inputs=[value("i", ("N", 2), INT64)]))
    assert tensor_of(module(cr.tensor(np.zeros((3, 2), np.int32)))).shape == (3, 2, 3)
    with pytest.raises(graph.GraphError, match=r'input "i" has the shape \[N, 2\]; got \[3, 3\]'):
        module(cr.tensor(np.zeros((3, 3), np.int64)))
    with pytest.raises(graph.GraphError, match='input "i" is of int64; got float32'):
        module(cr.tensor(np.zeros((3, 2), np.float32)))


def test_a_fixed_batch_is_freed_and_remarked_on() -> None:
    module = graph.load(content([node("Relu", "x", "y")], inputs=[value("x", (2, 4))]))
    assert module.inputs[0].shape == (None, 4)
    assert "first of each input is taken as the batch" in module.warnings[0]
    assert tensor_of(module(cr.tensor(draw(5, 4)))).shape == (5, 4)


def test_a_folded_batch_norm_is_explained() -> None:
    nodes = [node("Conv", "x onnx::Conv_12 onnx::Conv_13", "y", "/conv/Conv")]
    weights = {"onnx::Conv_12": draw(2, 3, 1, 1), "onnx::Conv_13": draw(2)}
    module = graph.load(content(nodes, weights, inputs=[value("x", ("N", 3, 4, 4))], producer="pytorch"))
    assert "BatchNorm layers were folded" in module.warnings[0]
    assert "TrainingMode.TRAINING" in module.warnings[0]


# ---- Shapes that are computed ----


def flattening() -> bytes:
    """x.view(x.shape[0], -1) as PyTorch writes it."""
    weights = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axes", "u"),
        node("Concat", "u rest", "shape", axis=0),
        node("Reshape", "x shape", "y"),
    ]
    return content(nodes, weights, inputs=[value("x", ("N", 2, 3))])


def test_shapes_are_computed_once_for_each_shape_of_the_inputs() -> None:
    module = graph.load(flattening())
    for n in (2, 5, 2):
        assert tensor_of(module(cr.tensor(draw(n, 2, 3)))).shape == (n, 6)
    plans = module._program._plans
    assert len(plans) == 2
    assert [step.node.op for step in next(iter(plans.values())).steps] == ["Reshape"]


def test_few_plans_are_kept() -> None:
    module = graph.load(flattening(), limits=graph.Limits(plans=3))
    for n in range(1, 8):
        module(cr.tensor(draw(n, 2, 3)))
    assert len(module._program._plans) == 3


def test_shapes_that_depend_on_elements_are_computed_every_time() -> None:
    weights = {"two": np.array([2])}
    nodes = [
        node("NonZero", "x", "places"),
        node("Shape", "places", "s"),
        node("Div", "s two", "h"),
        node("Expand", "z h", "y"),
    ]
    module = graph.load(content(nodes, weights, inputs=[value("x"), value("z", (1, 1))]))
    for count in (2, 6, 4):
        x = np.zeros((2, 4), np.float32)
        x.reshape(-1)[:count] = 1
        assert tensor_of(module(cr.tensor(x), cr.ones(1, 1))).shape == (1, count // 2)


def test_constants_are_folded() -> None:
    weights = {"a": np.array([2]), "b": np.array([3])}
    nodes = [node("Mul", "a b", "c"), node("ConstantOfShape", "c", "d"), node("Add", "x d", "y")]
    module = graph.load(content(nodes, weights, inputs=[value("x", ("N", 6))]))
    module(cr.tensor(draw(2, 6)))
    assert [step.node.op for step in next(iter(module._program._plans.values())).steps] == ["Add"]


# ---- Branches and functions ----


def branching(condition: list[Any], weights: dict[str, Any]) -> bytes:
    def branch(op: str, out: str) -> Any:
        return helper.make_graph([node(op, "x", out)], op, [], [value(out, None)])

    choice = helper.make_node("If", ["c"], ["y"], "if", then_branch=branch("Relu", "t"), else_branch=branch("Neg", "e"))
    return content([*condition, choice], weights)


@pytest.mark.parametrize("truth", [True, False])
def test_a_branch_with_a_constant_condition_is_inlined(truth: bool) -> None:
    module = graph.load(branching([], {"c": np.array(truth)}))
    x = cr.tensor(draw(2, 4))
    np.testing.assert_array_equal(tensor_of(module(x)).numpy(), (x.relu() if truth else -x).numpy())


def test_a_branch_follows_from_the_shape_of_the_input() -> None:
    nodes = [node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Equal", "n two", "c")]
    module = graph.load(branching(nodes, {"zero": np.array(0), "two": np.array(2)}))
    for n in (2, 3, 2, 3):
        x = cr.tensor(draw(n, 4))
        np.testing.assert_array_equal(tensor_of(module(x)).numpy(), (x.relu() if n == 2 else -x).numpy())


def test_a_branch_that_depends_on_elements_is_refused() -> None:
    nodes = [node("ReduceSum", "x", "s", keepdims=0), node("Greater", "s zero", "c")]
    with pytest.raises(graph.UnsupportedError, match="depends on the data"):
        graph.load(branching(nodes, {"zero": np.float32(0)}))


def test_functions_are_inlined() -> None:
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"], "leaky")
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = helper.make_function("f", "Slope", ["a"], ["b"], [leaky], [helper.make_opsetid("", 17)], ["slope"])
    body = [helper.make_node("Slope", ["p"], ["q"], "call", domain="f", slope=0.5), node("Neg", "q", "r")]
    outer = helper.make_function(
        "f", "Both", ["p"], ["r"], body, [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    )
    nodes = [
        helper.make_node("Both", ["x"], ["h"], "first", domain="f"),
        helper.make_node("Both", ["h"], ["y"], "second", domain="f"),
    ]
    module = graph.load(content(nodes, functions=[inner, outer], domains=["f"]))
    x = cr.tensor(draw(2, 4))
    once = -nn.functional.leaky_relu(x, 0.5)
    np.testing.assert_array_equal(tensor_of(module(x)).numpy(), (-nn.functional.leaky_relu(once, 0.5)).numpy())


# ---- Architecture and weights apart ----


def test_an_architecture_and_its_weights_come_together_again() -> None:
    file = mlp()
    whole = graph.load(file)
    architecture, weights = graph.split(file)
    assert set(weights) == set(whole.state_dict())
    apart = graph.load(architecture)
    assert list(apart.state_dict()) == list(whole.state_dict())
    assert [name for name, _ in apart.named_parameters()] == [name for name, _ in whole.named_parameters()]
    assert not apart.get_parameter("fc1.weight").numpy(force=True).any()
    assert apart.get_buffer("bn.running_var").numpy().all()
    apart.load_state_dict(weights)
    x = cr.tensor(draw(3, 4))
    np.testing.assert_array_equal(
        tensor_of(apart.eval()(x)).numpy(force=True), tensor_of(whole.eval()(x)).numpy(force=True)
    )
    assert apart.architecture == whole.architecture == architecture
    again = graph.split(graph.join(architecture, weights))
    assert again[0] == architecture


def test_an_architecture_is_onnx_with_its_weights_as_inputs() -> None:
    architecture, weights = graph.split(mlp())
    onnx.checker.check_model(architecture)
    opened = onnx.load_from_string(architecture)
    assert not opened.graph.initializer
    session = onnxruntime.InferenceSession(architecture, providers=["CPUExecutionProvider"])
    x = draw(3, 4)
    given = {name: array for name, array in weights.items() if not name.endswith("num_batches_tracked")}
    (y,) = session.run(None, {"x": x, **given})
    expected = tensor_of(graph.load(mlp()).eval()(cr.tensor(x))).detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_join_wants_every_weight() -> None:
    architecture, weights = graph.split(mlp())
    with pytest.raises(graph.GraphError, match=r'weight "fc2.weight" of the architecture is missing'):
        graph.join(architecture, {name: w for name, w in weights.items() if name != "fc2.weight"})
    with pytest.raises(graph.GraphError, match=r'weight "fc2.weight" has the shape \[3, 5\]; got \[1\]'):
        graph.join(architecture, {**weights, "fc2.weight": np.zeros(1, np.float32)})


def test_a_summary_says_what_is_in_a_file() -> None:
    summary = graph.check(mlp())
    assert summary.operators == {"BatchNormalization": 1, "Gemm": 2, "Relu": 1}
    assert summary.parameters["fc1.weight"].shape == (5, 4)
    assert set(summary.buffers) == {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}


def test_every_unsupported_node_is_named_at_once() -> None:
    nodes = [
        node("Loop", "x", "a", "first"),
        node("StringNormalizer", "a", "b", "second"),
        helper.make_node("Thing", ["b"], ["y"], "third", domain="com.example"),
    ]
    with pytest.raises(graph.UnsupportedError) as caught:
        graph.load(content(nodes, domains=["com.example"]))
    assert [(name, op) for name, op, _, _ in caught.value.nodes] == [
        ("first", "ai.onnx::Loop"),
        ("second", "ai.onnx::StringNormalizer"),
        ("third", "com.example::Thing"),
    ]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.nodes, again.message) == (caught.value.nodes, caught.value.message)


def test_what_leads_to_no_output_is_left_out() -> None:
    nodes = [node("Relu", "x", "y"), node("StringNormalizer", "x", "unused")]
    graph.load(content(nodes))


def test_nodes_may_come_in_any_order() -> None:
    file = model([node("Relu", "a", "y"), node("Neg", "x", "a")])
    x = cr.tensor(draw(2, 4))
    np.testing.assert_array_equal(
        tensor_of(graph.load(file.SerializeToString())(x)).numpy(), nn.functional.relu(-x).numpy()
    )
