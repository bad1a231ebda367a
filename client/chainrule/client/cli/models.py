"""`chainrule models`: make models and list them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.client.cli.output import short_digest, when
from chainrule.client.cli.session import AddressOption, FormatOption, open_session

CONFIG_OPTION = "--config"
app = typer.Typer(help="Make models and list them.", no_args_is_help=True)


@app.command("create")
def create(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its name: lower-case letters, digits, hyphens.")],
    family: Annotated[str, typer.Option(metavar="FAMILY", help='Its family; "chainrule models families" lists them.')],
    config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|JSON",
            help="Its configuration: num_classes=10, as often as needed, or one object '{\"num_classes\": 10}'. "
            "A value that is not JSON is a string.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Weights to start from, as safetensors.",
            show_default=False,
        ),
    ] = None,
    allow_missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Names that --weights may lack or hold in another shape, as 'fc.*' where a head is replaced; they are "
            "initialised. May be given several times.",
            show_default=False,
        ),
    ] = None,
    init_seed: Annotated[
        int, typer.Option(min=0, help="Seed of the initialisation of what --weights does not have.")
    ] = 0,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Make a model of a family that the server knows."""
    if allow_missing and weights is None:
        raise typer.BadParameter(
            "it says what --weights may lack, and there are none; give --weights, or leave it out.",
            param_hint="--allow-missing",
        )
    settings = parse_config(config or [])
    with open_session(ctx, address, form) as session:
        from chainrule.engine import io

        made = session.client.models.create_from_family(
            model,
            family,
            settings,
            weights=io.load(weights.read_bytes()) if weights else None,
            allow_missing=allow_missing or (),
            init_seed=init_seed,
        )
        session.output.record(
            made,
            [
                ("model", made.name),
                ("family", made.family),
                ("config", json.dumps(made.config)),
                ("weights sha256", made.weights_digest or f"initialised by the server from seed {made.init_seed}"),
                ("parameters", f"{made.num_parameters:,}"),
                ("created", when(made.create_time)),
            ],
        )


@app.command("ls")
def list_models(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List models, newest first."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.models.list(limit=limit),
            {
                "MODEL": lambda m: m.name,
                "FAMILY": lambda m: m.family,
                "CONFIG": lambda m: json.dumps(m.config),
                "PARAMETERS": lambda m: f"{m.num_parameters:,}",
                "WEIGHTS": lambda m: short_digest(m.weights_digest),
                "CREATED": lambda m: when(m.create_time),
            },
        )


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
