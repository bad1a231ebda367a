"""Where settings come from: an option, else a variable of the environment, else a file in TOML, else the default."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import os
import textwrap
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import typer

from chainrule.server.config import About
from chainrule.server.errors import StartupError, echo

T = TypeVar("T")

PREFIX = "CHAINRULE_SERVE_"
"""Of the variables. Not CHAINRULE_ alone: the client has CHAINRULE_TLS_CERT, and Kubernetes sets CHAINRULE_PORT for a
service of that name."""

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_WIDTH = 100


@dataclass(frozen=True)
class Setting:
    """One field of a settings class."""

    field: str
    kind: Any
    """Its type, without None."""
    default: Any
    about: About

    @property
    def option(self) -> str:
        """Its option without the hyphens before it, which is its key in a file, too."""
        return self.about.option or self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its variable of the environment."""
        return self.about.variable or PREFIX + self.option.upper().replace("-", "_")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it can have, if they are few."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    def from_text(self, text: str, source: str) -> Any:
        """Its value, from a variable. Raises StartupError."""
        if self.kind is bool:
            if text.lower() not in _TRUE + _FALSE:
                raise _wrong(source, text, "true or false")
            return text.lower() in _TRUE
        if self.kind in (int, float):
            try:
                return self.checked(self.kind(text), source)
            except ValueError:
                raise _wrong(source, text, self._allowed()) from None
        return self.checked(text, source)

    def checked(self, value: object, source: str) -> Any:
        """The value, in its type, if it is one that the setting can have. Raises StartupError."""
        if self.kind is float and type(value) is int:
            value = float(value)
        if self.kind is Path and type(value) is str and value:
            return Path(value)
        if self.choices:
            is_right = value in self.choices
        elif self.kind in (int, float):
            is_right = type(value) is self.kind and self._is_within(cast(float, value))
        else:
            is_right = isinstance(value, self.kind) and value != ""
        if not is_right:
            raise _wrong(source, value, self._allowed())
        return value

    def _is_within(self, value: float) -> bool:
        least, most = self.about.least, self.about.most
        return math.isfinite(value) and (least is None or value >= least) and (most is None or value <= most)

    def _allowed(self) -> str:
        if self.choices:
            return " or ".join(json.dumps(choice) for choice in self.choices)
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            word = "a whole number" if self.kind is int else "a number"
            least = "" if self.about.least is None else f" from {self.about.least:g}"
            return word + least + ("" if self.about.most is None else f" to {self.about.most:g}")
        return "a text that is not empty"


def settings_of(cls: type[Any]) -> tuple[Setting, ...]:
    """The settings that a class has: its fields made with `config.setting`, in order."""
    hints = get_type_hints(cls)
    found = []
    for one in fields(cls):
        about = one.metadata["about"]
        assert one.default is not MISSING
        found.append(Setting(one.name, _without_none(hints[one.name]), one.default, about))
    return tuple(found)


class Loaded(Generic[T]):
    """Settings, and where they come from.

    Args:
        given: values of options, by field; None: the option was not used.
        file: TOML file to read; None: none.
        environment: variables.

    Raises StartupError for a file that cannot be read, a key that is none, or a value that a setting cannot have.
    """

    def __init__(
        self,
        cls: type[T],
        given: Mapping[str, object],
        *,
        file: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings_of(cls)
        self.sources: dict[str, str] = {}
        """Of each field that does not have its default: what set it."""
        known = {one.variable for one in self.settings}
        self.unknown_variables = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
        """Variables that look like settings and are none. They may be somebody else's: Kubernetes makes some of the
        names of services."""
        written = {} if file is None else read_file(file, self.settings)
        values: dict[str, Any] = {}
        for one in self.settings:
            if given.get(one.field) is not None:
                source = f"--{one.option}"
                values[one.field] = one.checked(given[one.field], source)
            elif environment.get(one.variable):
                source = f"${one.variable}"
                values[one.field] = one.from_text(environment[one.variable], source)
            elif one.field in written:
                source = str(file)
                values[one.field] = written[one.field]
            else:
                continue
            self.sources[one.field] = source
        self.config: T = cls(**values)
        """The settings."""

    def template(self) -> str:
        """The settings as a TOML file that explains itself and, read again, sets what is set now."""
        lines = [
            "# Settings of `chainrule serve --config FILE`. A key is the name of an option; an option comes before the",
            "# environment, that before this file. Paths are those of the folder in which the server is started.",
        ]
        for one in self.settings:
            value = getattr(self.config, one.field)
            lines += ["", *textwrap.wrap(one.about.help, _WIDTH, initial_indent="# ", subsequent_indent="# ")]
            note = f"# ${one.variable}"
            if one.field in self.sources:
                note += f"; set by {self.sources[one.field]}"
                if one.default is not None:
                    note += f", by default {_toml(one.default)}"
            lines.append(note)
            if value is None:
                lines.append(f"# {one.option} = {_toml(one.about.example)}")
            else:
                lines.append(f"{one.option} = {_toml(value)}")
        return "\n".join(lines) + "\n"


def read_file(path: Path, settings: tuple[Setting, ...]) -> dict[str, Any]:
    """What a TOML file sets, by field. Raises StartupError."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise StartupError(f"--config {path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise StartupError(
            f"--config {path} is not TOML: {error}; chainrule serve --show-config prints a file to begin with"
        ) from error
    known = {one.option: one for one in settings}
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key.replace("_", "-"), known, n=1, cutoff=0.0)
            raise StartupError(
                f'--config {path}: there is no setting {echo(key)}; the nearest is "{near[0]}" '
                "(chainrule serve --show-config prints all)"
            )
    return {known[key].field: known[key].checked(value, f"{key} in {path}") for key, value in content.items()}


def options_of(cls: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator for a command: `command(given, ...)` gets the options of a settings class, by field, as `given`, and
    has other options of its own."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        taken = inspect.signature(command, eval_str=True).parameters.values()
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in taken if p.name != "given"]
        settings = settings_of(cls)

        def run(**arguments: Any) -> None:
            given = {one.field: arguments.pop(one.field) for one in settings}
            command(given, **arguments)

        parameters = [*map(_parameter, settings), *own]
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(one: Setting) -> inspect.Parameter:
    """The setting as Typer wants an option. Its default is None: whether it was used must be seen."""
    shown = "" if one.default is None or one.kind is bool else f" [default: {_plain(one.default)}]"
    kind = str if one.choices else one.kind
    names = [f"--{one.option}/--no-{one.option}" if kind is bool else f"--{one.option}"]
    if one.about.short:
        names.append(one.about.short)
    numeric: dict[str, Any] = {} if kind not in (int, float) else {"min": one.about.least, "max": one.about.most}
    if kind is int:
        numeric = {name: None if limit is None else int(limit) for name, limit in numeric.items()}
    option = typer.Option(*names, help=(one.about.help + shown).replace("[", "\\["), show_default=False, **numeric)
    return inspect.Parameter(
        one.field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (types.UnionType,):
        [kind] = [part for part in get_args(kind) if part is not type(None)]
    return kind


def _wrong(source: str, value: object, allowed: str) -> StartupError:
    return StartupError(f"{source} is {echo(value)}; use {allowed}")


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
