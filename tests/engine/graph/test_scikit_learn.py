"""scikit-learn's linear models and perceptrons, as skl2onnx writes them, give what onnxruntime gives, and train."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import chainrule.engine as cr
from chainrule.engine import graph
from tests.engine.graph.making import content, draw

linear_model = pytest.importorskip("sklearn.linear_model")
skl2onnx = pytest.importorskip("skl2onnx")

X = draw(60, 4)
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def models() -> dict[str, tuple[Any, Any]]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler

    return {
        "linear": (linear_model.LinearRegression(), X[:, 0]),
        "two targets": (linear_model.Ridge(), X[:, :2]),
        "scaled logistic": (make_pipeline(StandardScaler(), linear_model.LogisticRegression()), CLASSES),
        "binary logistic": (linear_model.LogisticRegression(), CLASSES > 0),
        "stochastic": (linear_model.SGDClassifier(loss="log_loss", random_state=0), CLASSES),
        "perceptron": (make_pipeline(MinMaxScaler(), Normalizer(), linear_model.Perceptron(random_state=0)), CLASSES),
        "layers": (MLPClassifier((5,), max_iter=20, random_state=0), CLASSES),
        "layers of numbers": (MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0), X[:, 0]),
    }


def exported(model: Any, targets: Any, **options: Any) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, targets)
        return bytes(
            skl2onnx.to_onnx(model, X[:1], options={id(model): options} if options else None).SerializeToString()
        )


def outputs(module: graph.GraphModule, x: Any) -> list[cr.Tensor]:
    result = module(cr.tensor(x))
    return list(result.values()) if isinstance(result, dict) else [result]


@pytest.mark.parametrize("name", models())
def test_it_gives_what_onnxruntime_gives(name: str) -> None:
    model, targets = models()[name]
    numbers = targets.dtype.kind == "f"
    file = exported(model, targets, **({} if numbers else {"zipmap": False}))
    expected = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"X": X})
    architecture, weights = graph.split(file)
    apart = graph.load(architecture)
    apart.load_state_dict(weights)
    for module in (graph.load(file), apart):
        for y, e in zip(outputs(module.eval(), X), expected, strict=True):
            np.testing.assert_allclose(y.numpy(force=True), e, rtol=1e-5, atol=1e-6)
    assert all(p.ndim <= 2 and p.numel() for p in apart.parameters())
    outputs(apart, X)[-1].sum().backward()
    assert all(p.grad is not None for p in apart.parameters())


def test_a_regressor_has_weights_of_its_own_name() -> None:
    model = linear_model.LinearRegression()
    module = graph.load(exported(model, X[:, :2]))
    assert {name: p.shape for name, p in module.named_parameters()} == {
        "LinearRegressor.weight": (2, 4),
        "LinearRegressor.bias": (2,),
    }
    np.testing.assert_allclose(module.state_dict()["LinearRegressor.weight"].numpy(), model.coef_, atol=1e-6)


def test_probabilities_come_as_a_tensor_without_zip_map() -> None:
    model = linear_model.LogisticRegression()
    module = graph.load(exported(model, CLASSES)).eval()
    assert "zipmap" in module.warnings[0]
    np.testing.assert_allclose(outputs(module, X)[1].numpy(force=True), model.predict_proba(X), atol=1e-5)


def test_labels_that_are_text_are_places() -> None:
    names = np.array(["ant", "bee", "cat"])[CLASSES]
    model = linear_model.LogisticRegression()
    module = graph.load(exported(model, names, zipmap=False)).eval()
    assert "labels are text" in module.warnings[0]
    np.testing.assert_array_equal(model.classes_[outputs(module, X)[0].numpy()], model.predict(X))


def test_coefficients_that_do_not_fit_are_refused() -> None:
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], "lin", domain="ai.onnx.ml", coefficients=[1.0] * 7, targets=2
    )
    with pytest.raises(graph.GraphError, match=r'node "lin" \(LinearRegressor\): 7 coefficients'):
        graph.load(content([node], domains=["ai.onnx.ml"]))


def test_a_transform_that_is_not_taken_is_named() -> None:
    settings = {"coefficients": [1.0] * 4, "post_transform": "PROBIT"}
    node = helper.make_node("LinearRegressor", ["x"], ["y"], "lin", domain="ai.onnx.ml", **settings)
    with pytest.raises(graph.UnsupportedError, match="post_transform=PROBIT"):
        graph.load(content([node], domains=["ai.onnx.ml"]))
