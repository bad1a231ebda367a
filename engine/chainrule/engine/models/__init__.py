"""Families of models, by name and configuration."""

from chainrule.engine.models.code import Source, all_draws
from chainrule.engine.models.gpt import GPT, GPTConfig, gpt
from chainrule.engine.models.mlp import MLP, MLPConfig, mlp
from chainrule.engine.models.mobilenet import MobileNetV2, MobileNetV2Config, mobilenet_v2
from chainrule.engine.models.outlines import Outline, outline_of
from chainrule.engine.models.parsing import own_factories
from chainrule.engine.models.registry import Family, build, families, family, family_of
from chainrule.engine.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    ResNet18Config,
    ResNet34Config,
    ResNet50Config,
    resnet18,
    resnet34,
    resnet50,
)
from chainrule.engine.models.small_cnn import SmallCNN, SmallCNNConfig, small_cnn
from chainrule.engine.models.vgg import VGG, VGG11Config, vgg11
from chainrule.engine.models.weights import (
    MobileNet_V2_Weights,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    VGG11_Weights,
)

__all__ = [
    "GPT",
    "MLP",
    "VGG",
    "BasicBlock",
    "Bottleneck",
    "Family",
    "GPTConfig",
    "MLPConfig",
    "MobileNetV2",
    "MobileNetV2Config",
    "MobileNet_V2_Weights",
    "Outline",
    "ResNet",
    "ResNet18Config",
    "ResNet18_Weights",
    "ResNet34Config",
    "ResNet34_Weights",
    "ResNet50Config",
    "ResNet50_Weights",
    "SmallCNN",
    "SmallCNNConfig",
    "Source",
    "VGG11Config",
    "VGG11_Weights",
    "all_draws",
    "build",
    "families",
    "family",
    "family_of",
    "gpt",
    "mlp",
    "mobilenet_v2",
    "outline_of",
    "own_factories",
    "resnet18",
    "resnet34",
    "resnet50",
    "small_cnn",
    "vgg11",
]
