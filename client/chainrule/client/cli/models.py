"""`chainrule models`: make models, list, change and remove them and their versions."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.client.cli.completion import complete_model
from chainrule.client.cli.connecting import Commands
from chainrule.client.cli.options import (
    DescriptionOption,
    EtagOption,
    FilterOption,
    LabelsOption,
    LimitOption,
    MissingOkOption,
    ModelArgument,
    NewLabelsOption,
    NoLabelsOption,
    OrderByOption,
    YesOption,
    confirm_removal,
    labels_text,
    new_labels,
    parse_labels,
)
from chainrule.client.cli.output import short_digest, short_name, size, when
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session, reported
from chainrule.client.cli.transfer import transfer_shown

if TYPE_CHECKING:
    import numpy as np

    from chainrule.client.resources import ModelRecord, TensorSpec

CONFIG_OPTION = "--config"
app = Commands(help="Make models; list, change and remove them and their versions.", no_args_is_help=True)


FamilyOption = Annotated[
    str | None,
    typer.Option(metavar="FAMILY", help='Its family; "chainrule models families" lists them.', show_default=False),
]
OnnxOption = Annotated[
    Path | None,
    typer.Option(
        "--onnx",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="In place of a family: an ONNX file, whose initializers are the weights.",
        show_default=False,
    ),
]
CodeOption = Annotated[
    Path | None,
    typer.Option(
        "--code",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="In place of a family: a Python file, whose factory makes the network. It is run here once, and by the "
        "workers of jobs; only servers that were started with --allow-code take it.",
        show_default=False,
    ),
]
FactoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The function or class of --code that makes the network; without it, build.",
        show_default=False,
    ),
]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class-label",
        metavar="NAME",
        help="What a class is called, in the order of the outputs; once for each.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE|JSON",
        help="Its configuration, or the arguments of --factory: num_classes=10, as often as needed, or one object "
        "'{\"num_classes\": 10}'. A value that is not JSON is a string.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Weights to start from, as safetensors or .pth.",
        show_default=False,
    ),
]
AllowMissingOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Names that --weights may lack or hold in another shape, as 'fc.*' where a head is replaced; they are "
        "initialised. May be given several times.",
        show_default=False,
    ),
]
InitSeedOption = Annotated[
    int,
    typer.Option(min=0, help="Seed of the initialisation of what --weights does not have, and of what --code draws."),
]


@app.command("create")
def create(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its name: lower-case letters, digits, hyphens.")],
    family: FamilyOption = None,
    onnx: OnnxOption = None,
    code: CodeOption = None,
    factory: FactoryOption = None,
    config: ConfigOption = None,
    weights: WeightsOption = None,
    allow_missing: AllowMissingOption = None,
    init_seed: InitSeedOption = 0,
    class_labels: ClassesOption = None,
    labels: LabelsOption = None,
    description: DescriptionOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Make a model of a family that the server knows, of an ONNX file, or of a Python file."""
    if sum(what is not None for what in (family, onnx, code)) != 1:
        raise typer.BadParameter(
            "one of them says what the network is; give one.", param_hint="--family, --onnx, --code"
        )
    if factory is not None and code is None:
        raise typer.BadParameter("it is in the file of --code; leave it out.", param_hint="--factory")
    if onnx is not None and config:
        raise typer.BadParameter("it is that of a family, or of code; leave it out.", param_hint=CONFIG_OPTION)
    if allow_missing and weights is None:
        raise typer.BadParameter(
            "it says what --weights may lack, and there are none; give --weights, or leave it out.",
            param_hint="--allow-missing",
        )
    settings, notes = parse_config(config or []), parse_labels(labels)
    with reported(ctx, form):
        arrays = None if weights is None else read_weights(weights)
    with open_session(ctx, address, form) as session:
        from chainrule.client.networks import Family

        with transfer_shown(session, "weights") as transferred, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what there is of them is shown below
            made = session.client.models.create(
                model,
                onnx or code or Family(family),
                config=None if onnx is not None else settings,
                factory=factory,
                weights=arrays,
                class_labels=class_labels or (),
                allow_missing=allow_missing or (),
                init_seed=init_seed,
                labels=notes,
                description=description or "",
                transferred=transferred,
            )
        _show(session, made)


@app.command("ls")
def list_models(
    ctx: typer.Context,
    filter: FilterOption = "",
    order_by: OrderByOption = "",
    limit: LimitOption = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List models, newest first unless told otherwise."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.models.list(filter=filter, order_by=order_by, limit=limit),
            {
                "MODEL": lambda m: m.name,
                "FAMILY": lambda m: m.family or ("graph" if m.code_digest is None else "code"),
                "CONFIG": lambda m: json.dumps(m.config) if m.family else short_digest(m.graph_digest or m.code_digest),
                "PARAMETERS": lambda m: f"{m.num_parameters:,}",
                "WEIGHTS": lambda m: short_digest(m.weights_digest),
                "VERSION": lambda m: short_name(m.latest_version) or "-",
                "LABELS": lambda m: labels_text(m.labels),
                "CREATED": lambda m: when(m.create_time),
            },
        )


@app.command("show")
def show(ctx: typer.Context, model: ModelArgument, address: AddressOption = None, form: FormatOption = None) -> None:
    """Show a model: its architecture, what it takes and gives, its weights."""
    with open_session(ctx, address, form) as session:
        _show(session, session.client.models.get(model))


@app.command("save")
def save(
    ctx: typer.Context,
    model: ModelArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            dir_okay=False,
            help="What to write: .onnx is the network with its weights, .safetensors and .pth are the weights.",
        ),
    ],
    input_shape: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…",
            help="Of a family, for .onnx: the shape of one input, as 1,8,8. A graph says its own.",
            show_default=False,
        ),
    ] = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Write the newest version of a model to a file, whose name says the format."""
    shape = None if input_shape is None else parse_shape(input_shape)
    with open_session(ctx, address, form) as session:
        from chainrule.client.networks import example_of

        found = session.client.models.get(model)
        if found.family and shape is None and file.suffix == ".onnx":
            raise typer.BadParameter(
                f"{found.name} is of a family, which is run once to be written as .onnx; give the "
                "shape of one input, as 1,8,8.",
                param_hint="--input-shape",
            )
        found.save(file, example=None if shape is None else example_of(found.family, shape))
        written = file.stat().st_size
        session.output.record(
            {"file": str(file), "size_bytes": written}, [("file", str(file)), ("size", size(written))]
        )


@app.command("versions")
def versions(
    ctx: typer.Context,
    model: ModelArgument,
    limit: LimitOption = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List the versions of a model, newest first, with what each was made from."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.models.versions(model, limit=limit),
            {
                "VERSION": lambda v: v.name,
                "JOB": lambda v: v.job or "-",
                "FROM": lambda v: v.parent_version or "-",
                "DATASET": lambda v: v.dataset or "-",
                "STEP": lambda v: str(v.step),
                "WEIGHTS": lambda v: short_digest(v.weights_digest),
                "CREATED": lambda v: when(v.create_time),
            },
        )


@app.command("update")
def update(
    ctx: typer.Context,
    model: ModelArgument,
    labels: NewLabelsOption = None,
    no_labels: NoLabelsOption = False,
    description: DescriptionOption = None,
    etag: EtagOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Change labels or description of a model."""
    notes = new_labels(labels, none=no_labels)
    with open_session(ctx, address, form) as session:
        _show(session, session.client.models.update(model, labels=notes, description=description, etag=etag))


@app.command("rm")
def remove(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model, or one version of it: digits/versions/2.", autocompletion=complete_model
        ),
    ],
    etag: EtagOption = None,
    missing_ok: MissingOkOption = False,
    yes: YesOption = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Remove a model with all its versions, or one version. What jobs use that have not ended is refused."""
    is_version = "/versions/" in model
    if is_version and etag:
        raise typer.BadParameter("a version has none; leave it out.", param_hint="--etag")
    confirm_removal(model if is_version else f"{model} with all its versions", yes=yes)
    with open_session(ctx, address, form) as session:
        models = session.client.models
        if is_version:
            models.delete_version(model, missing_ok=missing_ok)
        else:
            models.delete(model, etag=etag, missing_ok=missing_ok)
        session.output.note(f"removed {model}")


@app.command("families")
def families(ctx: typer.Context, address: AddressOption = None, form: FormatOption = None) -> None:
    """List the model families that the server can build, with the defaults of their configuration."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.server_info().families,
            {
                "FAMILY": lambda f: f.name,
                "CONFIG": lambda f: json.dumps(f.config),
                "DESCRIPTION": lambda f: f.description,
            },
        )


def _show(session: Session, model: "ModelRecord") -> None:
    session.output.record(
        model,
        [
            ("model", model.name),
            *architecture_lines(model),
            ("weights sha256", model.weights_digest or f"initialised by the server from seed {model.init_seed}"),
            ("parameters", f"{model.num_parameters:,}"),
            ("newest version", model.latest_version or "-"),
            *((("classes", ", ".join(model.class_labels)),) if model.class_labels else ()),
            ("labels", labels_text(model.labels)),
            *((("description", model.description),) if model.description else ()),
            ("created", when(model.create_time)),
        ],
    )
    for warning in model.warnings:
        session.output.note(f"note: {warning}")


def architecture_lines(model: "ModelRecord") -> list[tuple[str, str]]:
    """What a model's network is, as lines of names and values."""
    if model.code_digest is not None:
        return [
            ("code sha256", model.code_digest),
            ("factory", f"{model.factory} of {model.file_name}"),
            ("config", json.dumps(model.config)),
        ]
    if model.graph_digest is None:
        return [("family", model.family), ("config", json.dumps(model.config))]
    return [
        ("graph sha256", model.graph_digest),
        ("inputs", ", ".join(map(_spec_text, model.inputs))),
        ("outputs", ", ".join(map(_spec_text, model.outputs))),
    ]


def _spec_text(spec: "TensorSpec") -> str:
    """
    >>> from chainrule.client.resources import TensorSpec
    >>> _spec_text(TensorSpec(name="x", dtype="float32", shape=("batch", 3, "")))
    'x: float32 (batch, 3, ?)'
    """
    return f"{spec.name}: {spec.dtype} ({', '.join(str(size) or '?' for size in spec.shape)})"


def read_weights(file: Path) -> "dict[str, np.ndarray]":
    """The arrays in a safetensors or .pth file.

    Raises:
        InvalidInputError: it cannot be read, or is none.
    """
    from chainrule.client.networks import arrays_of

    return arrays_of(file)


def parse_shape(text: str) -> tuple[int, ...]:
    """
    >>> parse_shape("1,8,8")
    (1, 8, 8)

    Raises:
        typer.BadParameter: it is no list of lengths.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"'{text}' is no list of lengths, as 1,8,8.", param_hint="--input-shape")
    return tuple(map(int, parts))


def parse_config(texts: Sequence[str]) -> dict[str, Any]:
    """A configuration from what --config was given: key=value, or JSON objects.

    >>> parse_config(["num_classes=10", "activation=relu", '{"hidden": [32, 16]}'])
    {'num_classes': 10, 'activation': 'relu', 'hidden': [32, 16]}

    Raises:
        typer.BadParameter: a text is neither, or a key is given twice.
    """
    config: dict[str, Any] = {}
    for text in texts:
        for key, value in _settings_of(text).items():
            if key in config:
                raise typer.BadParameter(f'"{key}" is given twice; give it once.', param_hint=CONFIG_OPTION)
            config[key] = value
    return config


def _settings_of(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if key.isidentifier() and equals:
        try:
            return {key: json.loads(value)}
        except ValueError:
            return {key: value}
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"'{text}' is neither key=value, as num_classes=10, nor JSON ({error}).", param_hint=CONFIG_OPTION
        ) from error
    if not isinstance(settings, dict):
        raise typer.BadParameter(
            f"'{text}' is not a JSON object; give key=value or an object, as num_classes=10 or "
            "'{\"num_classes\": 10}'.",
            param_hint=CONFIG_OPTION,
        )
    return settings
