"""Pretrained weights: which file a family's are in, and how they come into a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from hashlib import sha256
from pathlib import Path

import numpy as np

from chainrule.engine import io, nn
from chainrule.engine.dtypes import Array, DType, default_dtype
from chainrule.engine.errors import ConfigError, DTypeError, FormatError, StateDictError, WeightsNotFoundError
from chainrule.engine.models.registry import build, family_of
from chainrule.engine.random import Generator

DOWNLOADS = "https://download.pytorch.org/models/"

# ---- torchvision's weights, and the files they are in; each is named after the first digits of its SHA-256 ----


class ResNet18_Weights(Enum):  # noqa: N801 - torchvision's names, here and below
    """Pretrained weights of a ResNet-18."""

    IMAGENET1K_V1 = "resnet18-f37072fd.pth"
    DEFAULT = IMAGENET1K_V1


class ResNet34_Weights(Enum):  # noqa: N801
    """Pretrained weights of a ResNet-34."""

    IMAGENET1K_V1 = "resnet34-b627a593.pth"
    DEFAULT = IMAGENET1K_V1


class ResNet50_Weights(Enum):  # noqa: N801
    """Pretrained weights of a ResNet-50."""

    IMAGENET1K_V1 = "resnet50-0676ba61.pth"
    IMAGENET1K_V2 = "resnet50-11ad3fa6.pth"
    DEFAULT = IMAGENET1K_V2


class VGG11_Weights(Enum):  # noqa: N801
    """Pretrained weights of a VGG-11."""

    IMAGENET1K_V1 = "vgg11-8a719046.pth"
    DEFAULT = IMAGENET1K_V1


class MobileNet_V2_Weights(Enum):  # noqa: N801
    """Pretrained weights of a MobileNetV2."""

    IMAGENET1K_V1 = "mobilenet_v2-b0353104.pth"
    IMAGENET1K_V2 = "mobilenet_v2-7ebf99e0.pth"
    DEFAULT = IMAGENET1K_V2


Weights = bool | str | os.PathLike[str] | Enum | None

VERSIONS: dict[str, type[Enum]] = {
    "mobilenet_v2": MobileNet_V2_Weights,
    "resnet18": ResNet18_Weights,
    "resnet34": ResNet34_Weights,
    "resnet50": ResNet50_Weights,
    "vgg11": VGG11_Weights,
}
OFFICIAL: dict[str, tuple[str, ...]] = {
    name: tuple(version.value for version in versions) for name, versions in VERSIONS.items()
}

# ---- Finding and loading ----


def home() -> Path:
    """Where chainrule keeps its files: $CHAINRULE_HOME, or else ~/.cache/chainrule."""
    return Path(os.environ.get("CHAINRULE_HOME") or "~/.cache/chainrule").expanduser()


def build_pretrained(
    name: str,
    config: Mapping[str, object],
    pretrained: Weights,
    weights: Weights,
    generator: Generator | None,
) -> nn.Module:
    """A model of a family, with weights from a file where `pretrained` or `weights` ask for them.

    Args:
        name: the family.
        config: its settings.
        pretrained: True for what torchvision means by it, IMAGENET1K_V1; whatever `weights` takes, too.
        weights: a path; DEFAULT, IMAGENET1K_V1 or IMAGENET1K_V2 for a file in `home()`/weights, or a member of the
            family's enumeration of that name; None for none.
        generator: what draws the parameters, unless they come from a file.

    Raises:
        ConfigError: a setting is wrong, or is not that of the weights.
        DTypeError: weights of another family.
        WeightsNotFoundError: there is no such file.
        FormatError: it is no file of weights.
        StateDictError: its weights are those of another architecture.
    """
    if weights is None or weights is False:
        weights = pretrained
    if weights is None or weights is False:
        return build(name, config, generator=generator)
    path = find_weights(name, weights)
    model = build(name, config, generator=_Blank())
    load_pretrained(model, path)
    return model


def find_weights(name: str, weights: bool | str | os.PathLike[str] | Enum) -> Path:
    """The file that `weights` means for a family; see `build_pretrained`.

    Raises:
        WeightsNotFoundError: it is not there; the message tells how it gets there.
        ConfigError: a version that the family does not have.
        DTypeError: weights of another family.
    """
    if isinstance(weights, Enum):
        expected = VERSIONS.get(name)
        if expected is None or not isinstance(weights, expected):
            known = f"Expected Weight class {expected.__name__}" if expected else f"{name} has no pretrained weights"
            raise DTypeError(f"{known}, but got {type(weights).__name__}")
        weights = weights.name
    if not isinstance(weights, bool | str):
        return _existing(name, [Path(weights)])
    version = "IMAGENET1K_V1" if weights is True else str(weights)
    if version != "DEFAULT" and not version.startswith("IMAGENET1K_"):
        return _existing(name, [Path(version).expanduser()])
    official = OFFICIAL.get(name, ())
    files = {f"IMAGENET1K_V{number}": file for number, file in enumerate(official, start=1)}
    if version != "DEFAULT" and version not in files:
        known = ", ".join(["DEFAULT", *files])
        raise ConfigError("weights", version, f"{name} has no such weights; choose a path, or one of: {known}")
    chosen = official[-1:] if version == "DEFAULT" else (files[version],)
    names = [f"{name}.safetensors", f"{name}.pth"] if version == "DEFAULT" or weights is True or len(files) == 1 else []
    return _existing(name, [home() / "weights" / file for file in (*names, *chosen)], chosen)


def load_pretrained(model: nn.Module, path: Path) -> None:
    """Copies the weights of a file into a model, if every key and every shape is the same.

    Raises:
        ConfigError: the weights tell another number of classes apart than the model.
        FormatError: the file is malformed, or not the one its name says.
        StateDictError: a key is missing or unexpected, or a shape differs; nothing was copied.
    """
    name, config = family_of(model)
    if path.name in OFFICIAL.get(name, ()):
        _check_digest(path)
    state = io.load_weights(path)
    own = model.state_dict()
    for key, value in own.items():  # which files of PyTorch before 0.4.1 do not have
        if key.endswith("num_batches_tracked") and f"{key.removesuffix('num_batches_tracked')}running_mean" in state:
            state.setdefault(key, np.zeros_like(value.data))
    last = next(reversed(own))  # the bias of the classifier
    if last in state and "num_classes" in config and state[last].shape != own[last].shape:
        raise ConfigError(
            "num_classes",
            config["num_classes"],
            f"the weights in {path} tell {len(state[last])} classes apart; build the model with "
            f"num_classes={len(state[last])}, then replace its {last.rpartition('.')[0]} by a layer of your own",
        )
    try:
        model.load_state_dict(state)
    except StateDictError as error:
        raise StateDictError(f"{path} does not hold the weights of {name}: {error}") from error


def _existing(name: str, paths: Sequence[Path], official: Sequence[str] = ()) -> Path:
    for path in paths:
        if path.is_file():
            return path
    raise WeightsNotFoundError(name, str(paths[0]), _remedy(name, paths, official))


def _remedy(name: str, paths: Sequence[Path], official: Sequence[str]) -> str:
    if len(paths) == 1:
        return "give the path of a .safetensors or .pth file with its state_dict"
    folder = f"{paths[0].parent} (the folder weights of CHAINRULE_HOME, which is {home()})"
    if not official:
        return f"save them with chainrule.engine.io.save_file, or put {name}.pth into {folder}"
    return (
        f"download torchvision's {DOWNLOADS}{official[0]} and put it into {folder}, as {official[0]} or {name}.pth; "
        f"{name}.safetensors is read, too"
    )


def _check_digest(path: Path) -> None:
    named, found = path.stem.rpartition("-")[2], sha256(path.read_bytes()).hexdigest()
    if not found.startswith(named):
        raise FormatError(
            f"{path}: the SHA-256 of its content begins with {found[: len(named)]}, not with {named}; download it again"
        )


class _Blank(Generator):
    """Draws nothing but zeros, for parameters that are about to be overwritten."""

    def uniform(self, shape: Sequence[int], dtype: DType = default_dtype) -> Array:
        return np.zeros(shape, dtype)

    def normal(self, shape: Sequence[int], dtype: DType = default_dtype) -> Array:
        return np.zeros(shape, dtype)
