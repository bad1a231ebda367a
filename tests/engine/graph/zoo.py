"""The architectures that graphs are tested with, their inputs, and their export by PyTorch's two exporters."""

from __future__ import annotations

import importlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array


@dataclass(frozen=True)
class Input:
    """One input: its shape without the batch, and below which number it is drawn if it is of integers."""

    shape: tuple[int, ...]
    below: int | None = None

    def draw(self, batch: int, draws: np.random.Generator) -> Array:
        """(batch, *shape): float32 from the normal distribution, or int64."""
        shape = (batch, *self.shape)
        if self.below is not None:
            return draws.integers(0, self.below, shape)
        return draws.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Architecture:
    """A network of the zoo: the module that has the function which makes it, and its inputs."""

    module: str
    inputs: tuple[Input, ...]
    refused: str | None = None
    """What the error says of the node that no operator here computes, if it is refused."""

    def draw(self, batch: int, seed: int = 0) -> list[Array]:
        draws = np.random.default_rng(seed)
        return [input.draw(batch, draws) for input in self.inputs]


def _image(channels: int = 3, size: int = 16) -> Architecture:
    return Architecture("zoo_images", (Input((channels, size, size)),))


def _tokens(length: int = 6, below: int = 11) -> Architecture:
    return Architecture("zoo_sequences", (Input((length,), below),))


def _numbers(*shapes: tuple[int, ...]) -> Architecture:
    return Architecture("zoo_sequences", tuple(map(Input, shapes)))


ZOO = {
    **dict.fromkeys(("resnet18", "resnet50", "resnext", "group_norm_resnet"), _image(size=32)),
    **dict.fromkeys(("senet", "mobilenet_v2", "mobilenet_v3", "efficientnet", "squeezenet", "shufflenet"), _image()),
    **dict.fromkeys(("alexnet", "vgg_bn", "densenet", "inception", "googlenet", "prelu_net", "cbam"), _image()),
    **dict.fromkeys(("unet", "unet_bilinear", "fcn", "style", "convnext", "patchwork"), _image()),
    **dict.fromkeys(("lenet", "autoencoder", "super_resolution"), _image(1)),
    **dict.fromkeys(("mlp_mixer", "vit", "swin"), _numbers((3, 16, 16))),
    **dict.fromkeys(("gpt", "gpt_untied", "llama", "bert", "text_cnn"), _tokens()),
    **dict.fromkeys(("lstm_tagger", "gru_classifier", "bidirectional_lstm", "stacked_gru", "elman"), _tokens()),
    "translator": Architecture("zoo_sequences", (Input((5,), 11), Input((4,), 9))),
    "lstm_forecast": _numbers((7, 3)),
    **dict.fromkeys(("wavenet", "tcn"), _numbers((2, 12))),
    "wide_and_deep": Architecture("zoo_sequences", (Input((2,), 5), Input((4,)))),
    "siamese": _numbers((6,), (6,)),
    **dict.fromkeys(("highway", "mlp"), _numbers((6,))),
    "conv3d": Architecture("zoo_images", (Input((1, 4, 4, 4)),), refused="Conv"),
    "variational": Architecture("zoo_sequences", (Input((6,)),), refused="RandomNormalLike"),
}


def build(name: str, seed: int = 0) -> Any:
    """The torch module, in training mode, its weights drawn from `seed`."""
    import torch

    torch.manual_seed(seed)
    return getattr(importlib.import_module(f"tests.engine.graph.{ZOO[name].module}"), name)().train()


def tensors(arrays: list[Array]) -> tuple[Any, ...]:
    import torch

    return tuple(map(torch.from_numpy, arrays))


# ---- Exporters ----


def export_legacy(module: Any, arrays: list[Array], *, training: Any = None, **settings: Any) -> bytes:
    """What `torch.onnx.export(dynamo=False)` makes of a module that is to be trained: the first dimension is free."""
    import torch

    names = [f"x{i}" for i in range(len(arrays))]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tensors(arrays),
            file,
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING if training is None else training,
            do_constant_folding=training is not None,
            input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names},
            **settings,
        )
    return file.getvalue()


def export_dynamo(module: Any, arrays: list[Array], *, optimize: bool = False, **settings: Any) -> bytes:
    """What `torch.onnx.export(dynamo=True)` makes of it, the first dimension free.

    `optimize=False`: the optimizer folds BatchNorm into the convolutions before it, of a module in training mode, too.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tensors(arrays),
            dynamo=True,
            optimize=optimize,
            verbose=False,
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in arrays),
            **settings,
        )
    return bytes(program.model_proto.SerializeToString())
