"""The arguments of a job from all that may give them: options, --set, the environment and a job file, in this order."""

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OPTIONS: Mapping[str, str] = {
    "optimizer": "optimizer.name",
    "lr": "optimizer.lr",
    "momentum": "optimizer.momentum",
    "dampening": "optimizer.dampening",
    "nesterov": "optimizer.nesterov",
    "beta1": "optimizer.beta1",
    "beta2": "optimizer.beta2",
    "eps": "optimizer.eps",
    "weight_decay": "optimizer.weight_decay",
    "warmup_steps": "schedule.warmup_steps",
    "decay": "schedule.decay",
    "decay_steps": "schedule.decay_steps",
    "gamma": "schedule.gamma",
    "final_factor": "schedule.final_factor",
    "loss": "loss.name",
    "label_smoothing": "loss.label_smoothing",
    "metric": "metrics",
    "validation_fraction": "validation.fraction",
    "validation_seed": "validation.seed",
    "validation_dataset": "validation.dataset",
    "patience": "validation.patience",
    "restore_best": "validation.restore_best",
    "validation_metric": "validation.metric",
    **{
        name: name
        for name in (
            *("model", "dataset", "trainable", "epochs", "batch_size", "shards", "seed", "clip_norm", "workers"),
            *("min_workers", "max_workers", "partitions", "staleness", "priority", "exact", "non_finite"),
            *("checkpoint_every_steps", "keep_checkpoints", "receipt_every_steps", "audit_fraction", "max_failures"),
            *("accumulate", "ema_decay", "precision", "description"),
        )
    },
}
"""Option, by the name of its parameter → key in a job file."""

PREFIX = "CHAINRULE_JOB_"
VARIABLES: Mapping[str, str] = {name: f"{PREFIX}{name.upper()}" for name in OPTIONS}
"""Option → environment variable."""

_TEXTS = (
    "model",
    "dataset",
    "description",
    "non_finite",
    "precision",
    "optimizer.name",
    "schedule.decay",
    "validation.dataset",
    "validation.metric",
    "loss",
)
_NAMED_BY = {"optimizer": "name", "loss": "name", "schedule": "decay"}
"""Groups that a text may stand for → the key of the text in them."""
_ONE_OF_THEM = ("workers", "max_workers")  # two ways to say one thing
_EVALUATED_ON = ("fraction", "dataset")  # as here, in the group of the validation
_NOT_IN_FILES = ("request_id",)


def gather(
    options: Mapping[str, Any],
    *,
    labels: Mapping[str, str],
    settings: Sequence[str],
    job_file: Path | None,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """The arguments of `jobs.create`: what an earlier source says holds.

    Args:
        options: parameter → value of those that were given.
        settings: KEY=VALUE, with keys as in a job file.

    Raises:
        InvalidInputError: the file cannot be read, a key is unknown, or there is no model or dataset.
    """
    from chainrule.client.errors import InvalidInputError

    arguments: dict[str, Any] = {}
    if job_file is not None:
        _add(arguments, _read(job_file), source=str(job_file))
    _refuse_unknown_variables(environment)
    told = {key: environment.get(VARIABLES[name]) for name, key in OPTIONS.items()}
    variables = [_setting(key, value) for key, value in told.items() if value]
    _add(arguments, _together(variables), source="the environment")
    _add(arguments, _together([_parse(text) for text in settings]), source="--set")
    given = [_nested(OPTIONS[name], value) for name, value in options.items()]
    _add(arguments, _together([*given, {"labels": dict(labels)} if labels else {}]), source="the command line")
    for name in ("model", "dataset"):
        if name not in arguments:
            raise InvalidInputError(
                f'nothing says which {name} to take; give --{name}, or name it in a job file: {name} = "digits"'
            )
    return arguments


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    from difflib import get_close_matches

    from chainrule.client.errors import InvalidInputError

    known = set(VARIABLES.values())
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            [*near] = get_close_matches(name, known, n=1, cutoff=0.9)
            meant = f"; did you mean {near[0]}?" if near else f"; they are named as the options: {PREFIX}EPOCHS"
            raise InvalidInputError(f"the variable {name} in the environment is no setting of a job{meant}")


def _read(file: Path) -> dict[str, Any]:
    from chainrule.client.errors import InvalidInputError

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read as a TOML file: {error}") from error


def _parse(text: str) -> dict[str, Any]:
    """KEY=VALUE as in a job file; a value that is not TOML is a text."""
    from chainrule.client.errors import InvalidInputError

    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise InvalidInputError(f"--set '{text}' is not key=value, as optimizer.lr=0.1")
    try:
        return _setting(key.strip(), value.strip())
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"--set '{text}' has no key of TOML before its =: {error}") from error


def _setting(key: str, value: str) -> dict[str, Any]:
    as_text = tomllib.loads(f"{key} = {_quoted(value)}")
    try:
        parsed = tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return as_text
    is_text = key in _TEXTS or key.startswith(("labels.", "inputs."))
    has_quotes = value.startswith(('"', "'"))
    return parsed if _has_keys_of(as_text, parsed) and (has_quotes or not is_text) else as_text


def _quoted(text: str) -> str:
    """A text as TOML has it: as JSON, but with every character as it is that may be."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _has_keys_of(one: Any, parsed: Any) -> bool:
    """Whether a value sets no more than the key it is for: a line break in it could begin another."""
    while isinstance(one, dict):
        if one.keys() != parsed.keys():
            return False
        [key] = one
        one, parsed = one[key], parsed[key]
    return True


def _nested(key: str, value: Any) -> dict[str, Any]:
    group, _, name = key.rpartition(".")
    return {group: {name: value}} if group else {name: value}


def _together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of one source."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, str) and key in _NAMED_BY:
                value = {_NAMED_BY[key]: value}
            whole[key] = _joined(whole.get(key), value)
    return whole


def _joined(before: Any, value: Any) -> Any:
    return {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value


def _add(arguments: dict[str, Any], more: Mapping[str, Any], *, source: str) -> None:
    """Let what a source says hold over what is there, key by key."""
    _check_keys(more, source=source)
    if any(name in more for name in _ONE_OF_THEM):
        for name in _ONE_OF_THEM:
            arguments.pop(name, None)
    arguments.update(_together([_without_what_is_replaced(arguments, more), more]))


def _without_what_is_replaced(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """What was said before, less what makes no sense with what is said now: the settings of another optimizer or loss,
    and another set of examples to evaluate on."""
    from dataclasses import fields

    from chainrule.client.config import Adam, Sgd

    kept = dict(before)
    optimizer, now = kept.get("optimizer"), more.get("optimizer")
    name = now.get("name") if isinstance(now, Mapping) else now
    if isinstance(optimizer, Mapping) and isinstance(name, str) and name != optimizer.get("name", "sgd"):
        own = {f.name for f in fields(Sgd if name == "sgd" else Adam)} - {"decoupled"}  # that is in the name
        kept["optimizer"] = {key: value for key, value in optimizer.items() if key in own}
    loss, now = kept.get("loss"), more.get("loss")
    name = now.get("name") if isinstance(now, Mapping) else now
    if isinstance(loss, Mapping) and isinstance(name, str) and name != loss.get("name", "cross_entropy"):
        del kept["loss"]
    validation, now = kept.get("validation"), more.get("validation")
    if isinstance(validation, Mapping) and isinstance(now, Mapping) and any(name in now for name in _EVALUATED_ON):
        kept["validation"] = {key: value for key, value in validation.items() if key not in _EVALUATED_ON}
    return kept


def _check_keys(given: Mapping[str, Any], *, source: str) -> None:
    """Raises InvalidInputError if a source has a key that there is not, naming the nearest one."""
    import inspect
    from dataclasses import fields

    from chainrule.client.config import Adam, Loss, MetricSpec, Schedule, Sgd, Validation
    from chainrule.client.submission import job_request

    known = [name for name in inspect.signature(job_request).parameters if name not in _NOT_IN_FILES]
    groups = {
        "optimizer": ["name", *dict.fromkeys(f.name for kind in (Sgd, Adam) for f in fields(kind))],
        "schedule": [f.name for f in fields(Schedule)],
        "validation": [f.name for f in fields(Validation)],
        "loss": [f.name for f in fields(Loss)],
        "metrics": [f.name for f in fields(MetricSpec)],
    }
    for key, value in given.items():
        _check_key(key, known, [*known, *(f"{g}.{name}" for g in groups for name in groups[g])], source)
        parts = value if isinstance(value, list) else [value]  # of [[loss]], a table each
        for inner in (inner for part in parts if isinstance(part, Mapping) and key in groups for inner in part):
            names = [f"{key}.{name}" for name in groups[key]]
            _check_key(f"{key}.{inner}", names, names, source)


def _check_key(key: str, known: Sequence[str], near: Sequence[str], source: str) -> None:
    from difflib import get_close_matches

    from chainrule.client.errors import InvalidInputError

    if key in known:
        return
    last = {name.rpartition(".")[2]: name for name in reversed(near)}
    found = get_close_matches(key, near, n=1) or [last[m] for m in get_close_matches(key, last, n=1)]
    remedy = f'; did you mean "{found[0]}"?' if found else f"; there are {', '.join(known)}"
    raise InvalidInputError(f'{source} has the unknown key "{key}"{remedy}')
