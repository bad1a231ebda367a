"""Families of models, by name and configuration."""

from chainrule.engine.models.mlp import MLP, MLPConfig, mlp
from chainrule.engine.models.registry import Family, build, families, family, family_of
from chainrule.engine.models.small_cnn import SmallCNN, SmallCNNConfig, small_cnn

__all__ = [
    "MLP",
    "Family",
    "MLPConfig",
    "SmallCNN",
    "SmallCNNConfig",
    "build",
    "families",
    "family",
    "family_of",
    "mlp",
    "small_cnn",
]
