"""The works that are measured: what is computed on how many threads, the goal, and the operations it takes."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from typing import Any

# ---- A work ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step that both engines take: of training, unless `mode` says otherwise."""

    name: str
    """What `--only` takes."""
    title: str
    """What the table says."""
    network: str
    """`resnet18`, `mlp`, `gpt` or `chain`."""
    batch: int
    """Examples in a step; of a chain, elements."""
    shape: tuple[int, ...]
    """The pixels of an image's side; the widths of an MLP; vocabulary, tokens, width, heads and layers of a GPT; the
    operations of a chain."""
    mode: str = "train"
    """`train`; `tune-eval` and `tune-train`: a new head on a frozen backbone in that mode; `infer`: forward only."""
    dtype: str = "float32"
    """`float32`, or `bfloat16` by autocast."""
    threads: int = 1
    """Threads of each engine."""
    goal: float | None = None
    """What PyTorch's time over ours should be at least."""
    memory_goal: float | None = None
    """What our peak memory over PyTorch's should be at most."""

    @property
    def has_images(self) -> bool:
        """Whether the order of the elements in memory is a choice."""
        return self.network == "resnet18"

    @property
    def classes(self) -> int:
        """What the classifier tells apart."""
        if self.network == "resnet18":
            return 10 if self.mode.startswith("tune") else 1000
        return self.shape[0] if self.network == "gpt" else self.shape[-1]

    def to_json(self) -> dict[str, Any]:
        """The fields, as `from_json` takes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Work:
        """The work of these fields."""
        return cls(**{**fields, "shape": tuple(fields["shape"])})


def _resnet(name: str, title: str, batch: int, pixels: int, **settings: Any) -> Work:
    title = f"ResNet-18 {title}, B{batch} {pixels}²"
    return Work(name=name, title=title, network="resnet18", batch=batch, shape=(pixels,), **settings)


def _mlp(widths: tuple[int, ...], batch: int, goal: float) -> Work:
    title = f"MLP {'-'.join(map(str, widths))}, B{batch}"
    return Work(name=f"mlp-{widths[1]}-b{batch}", title=title, network="mlp", batch=batch, shape=widths, goal=goal)


WORKS = (
    _resnet("resnet18-64", "training", 32, 64, goal=1.35, memory_goal=1.0),
    _resnet("resnet18-224", "training", 16, 224, goal=1.30),
    _resnet("resnet18-64-bf16", "training", 32, 64, dtype="bfloat16", goal=1.5),
    _resnet("resnet18-224-bf16", "training", 16, 224, dtype="bfloat16", goal=1.2),
    _resnet("resnet18-64-2t", "training", 32, 64, threads=2, goal=1.20),
    _mlp((784, 4096, 4096, 10), 64, 2.0),
    _mlp((784, 256, 10), 1, 1.0),
    _mlp((784, 256, 10), 64, 2.0),
    _mlp((784, 256, 10), 512, 2.0),
    Work(name="chain", title="chain of 200 operations", network="chain", batch=10, shape=(200,), goal=1.0),
    Work(
        name="gpt", title="GPT 4 × 256, B8 × 128 tokens", network="gpt", batch=8, shape=(256, 128, 256, 4, 4), goal=1.2
    ),
    _resnet("tune-eval", "tuning, backbone in eval", 32, 64, mode="tune-eval", goal=1.25),
    _resnet("tune-train", "tuning, backbone in train", 32, 64, mode="tune-train", goal=1.25),
    _resnet("infer", "inference", 32, 64, mode="infer"),
)


def select(names: str | None) -> tuple[Work, ...]:
    """The works of these names, separated by commas, in the table's order; all of them if None.

    Raises:
        ValueError: a name there is not.
    """
    if names is None:
        return WORKS
    wanted = {name.strip() for name in names.split(",")}
    unknown = wanted - {work.name for work in WORKS}
    if unknown:
        raise ValueError(f"no work is named {', '.join(sorted(unknown))}; --list lists them")
    return tuple(work for work in WORKS if work.name in wanted)


# ---- An order ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is to measure."""

    engine: str
    """`chainrule.engine` or `torch`; `numpy` for the machine's peak."""
    work: Work
    """The step it takes; of `numpy` only the threads count."""
    memory_format: str = "contiguous_format"
    """The order in memory of images and convolutions' weights."""
    warmup_steps: int = 3
    """Steps of warming up, at least, and more until they get no faster."""
    warmup_s: float = 0.3
    """Seconds of warming up, at least."""
    seconds: float = 3.0
    """Seconds of timed steps, at least."""
    min_steps: int = 5
    """Timed steps, at least."""

    def to_json(self) -> str:
        """As the process takes it."""
        return json.dumps({**asdict(self), "work": self.work.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The order that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "work": Work.from_json(fields["work"])})


# ---- Operations ----


def flops(work: Work) -> int | None:
    """The multiplications and additions of a step's convolutions and matrix products; None for a chain, without any.

    A layer of m multiplications-with-addition takes 2m forward, 2m for the gradient of its weight, 2m for that of its
    input; the first layer has no gradient of its input.
    """
    if work.network == "chain":
        return None
    if work.network == "gpt":
        return _gpt_flops(work)
    layers = _mlp_layers(work) if work.network == "mlp" else _resnet_layers(work)
    forward = 2 * work.batch * sum(layers)
    if work.mode == "infer":
        return forward
    if work.mode.startswith("tune"):
        return forward + 2 * work.batch * layers[-1]
    return 3 * forward - 2 * work.batch * layers[0]


def _mlp_layers(work: Work) -> list[int]:
    return [narrow * wide for narrow, wide in itertools.pairwise(work.shape)]


def _resnet_layers(work: Work) -> list[int]:
    """Of each layer of a ResNet-18 the multiplications for one image, in order: the first convolution's first."""
    side = _halved(work.shape[0])
    layers = [49 * 3 * 64 * side**2]
    side = _halved(side)  # the pooling
    inplanes = 64
    for planes in (64, 128, 256, 512):
        if planes != inplanes:
            side = _halved(side)
            layers.append(inplanes * planes * side**2)
        layers += [9 * channels * planes * side**2 for channels in (inplanes, planes, planes, planes)]
        inplanes = planes
    return [*layers, 512 * work.classes]


def _halved(side: int) -> int:
    return (side + 1) // 2


def _gpt_flops(work: Work) -> int:
    """All matrix products have both gradients; attention counts in full, though half of it is masked."""
    vocabulary, tokens, dim, _, layers = work.shape
    weights = layers * 12 * dim**2 + dim * vocabulary
    attention = layers * 2 * tokens * dim
    return 6 * work.batch * tokens * (weights + attention)
