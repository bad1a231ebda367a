"""Writes the files of this folder: networks of Keras, by tf2onnx, and what Keras computes with them (values.npz).

Not a part of the tests: run it where Keras is, with the folder as its argument. The files that are here were written by
TensorFlow 2.21.0 (CPU), Keras 3.15.1, tf2onnx 1.17.0, onnx 1.23.2 and NumPy 2.4.6, in Python 3.11.
"""
# mypy: ignore-errors

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import Input, Model, Sequential
from keras import layers as L


def mlp():
    return Sequential([Input((6,)), L.Dense(8, activation="relu"), L.Dropout(0.2), L.Dense(3)])


def convnet():
    first = [L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D()]
    second = [L.Conv2D(6, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dropout(0.3)]
    return Sequential([Input((8, 8, 3)), *first, *second, L.Dense(5, activation="softmax")])


def folded():
    """A normalisation right behind a convolution without a bias."""
    layers = [L.Conv2D(4, 3, use_bias=False), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(2)]
    return Sequential([Input((5, 5, 2)), *layers])


def separable():
    first = [L.SeparableConv2D(4, 3, padding="same"), L.BatchNormalization(), L.Activation("swish")]
    second = [L.DepthwiseConv2D(3, strides=2), L.Conv2DTranspose(2, 3, strides=2), L.UpSampling2D()]
    return Sequential([Input((5, 5, 3)), *first, *second, L.Flatten(), L.Dense(2)])


def conv1d():
    layers = [L.Conv1D(4, 3, padding="causal", activation="elu"), L.MaxPooling1D(2), L.Flatten(), L.Dense(2)]
    return Sequential([Input((12, 3)), *layers])


def lstm_tagger():
    return Sequential([Input((7,), dtype="int32"), L.Embedding(11, 6), L.LSTM(5, return_sequences=True), L.Dense(4)])


def bidirectional():
    return Sequential([Input((7, 3)), L.Bidirectional(L.LSTM(4)), L.Dense(2)])


def gru():
    """By a Loop, which is not taken."""
    return Sequential([Input((3, 3)), L.GRU(5), L.Dense(2)])


def gru_unrolled():
    return Sequential([Input((3, 3)), L.GRU(5, unroll=True), L.Dense(2)])


def functional():
    a, b = Input((4,)), Input((3,))
    joined = L.Concatenate()([L.Dense(5, activation="tanh")(a), L.Dense(5, activation="relu")(b)])
    return Model([a, b], L.Dense(2)(L.LayerNormalization()(joined)))


def attention():
    x = Input((6, 8))
    y = L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))
    return Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(y)))


def gelu():
    """By an operator that ONNX does not have."""
    return Sequential([Input((4,)), L.Dense(5, activation="gelu"), L.Dense(2)])


def gelu_tanh():
    layers = [L.Dense(5), L.Activation(lambda x: keras.activations.gelu(x, approximate=True)), L.Dense(2)]
    return Sequential([Input((4,)), *layers])


def write(make, folder):
    """The file of a network whose weights are drawn, and an example with what Keras computes of it."""
    keras.utils.set_random_seed(1)
    model, draws = make(), np.random.default_rng(3)
    drawn = [
        draws.uniform(0.5, 1.0, w.shape) if w.path.endswith("variance") else 0.4 * draws.standard_normal(w.shape)
        for w in model.weights
    ]
    model.set_weights([w.astype(np.float32) for w in drawn])
    shapes = [(i.shape[1:], i.dtype) for i in model.inputs]
    xs = [
        draws.integers(0, 11, (3, *s)).astype(np.int32) if d == "int32" else draws.standard_normal((3, *s), np.float32)
        for s, d in shapes
    ]
    signature = tuple(tf.TensorSpec((None, *s), d, name=f"x{i}") for i, (s, d) in enumerate(shapes))

    @tf.function(input_signature=signature)
    def function(*args):
        return model(list(args) if len(args) > 1 else args[0], training=False)

    path = folder / f"{make.__name__}.onnx"
    tf2onnx.convert.from_function(function, input_signature=signature, opset=17, output_path=str(path))
    return {"y": function(*xs).numpy(), **{f"x{i}": x for i, x in enumerate(xs)}}


if __name__ == "__main__":
    networks = [
        mlp, convnet, folded, separable, conv1d, lstm_tagger, bidirectional, gru, gru_unrolled, functional, attention,
        gelu, gelu_tanh,
    ]  # fmt: skip
    target = Path(sys.argv[1])
    found = {f"{make.__name__}.{key}": x for make in networks for key, x in write(make, target).items()}
    np.savez_compressed(target / "values.npz", **found)
