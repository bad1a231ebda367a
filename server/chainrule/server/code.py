"""Models that are Python code, as the service takes them: it reads the file and what is said of it; it runs nothing."""

from __future__ import annotations

import json
import keyword
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from chainrule.engine.models import Outline, parsing
from chainrule.engine.models.outlines import STATISTICS, Spec, statistics_of
from chainrule.server.architecture import CodeArchitecture
from chainrule.server.errors import InvalidRequestError, Violation, echo
from chainrule.server.networks import MAX_PARAMETERS, Described
from chainrule.server.training.state import Array, Arrays

MAX_SOURCE_BYTES = parsing.MAX_SOURCE_BYTES
MAX_CONFIG_BYTES = 64 * 1024
"""Longest configuration, as JSON."""
MAX_NAMES = 20_000
"""Most names in a state_dict."""
MAX_NAME_LENGTH = 100
PARSE_TIMEOUT_S = 20.0
"""How long a file may take to be parsed. There are some of 1 MiB that would take minutes."""
FILE_NAME = re.compile(r"[A-Za-z0-9_. -]{1,97}\.py")

_CODE = "model.code"
_DIGEST = f"{_CODE}.digest"
_WEIGHTS = "model.weights_digest"


# --- the file --------------------------------------------------------------------------------------------------


def check_call(architecture: CodeArchitecture) -> None:
    """Raises InvalidRequestError if the factory, its configuration or the file's name cannot be."""
    found = []
    factory, config = architecture.factory, architecture.config
    if not factory.isidentifier() or keyword.iskeyword(factory) or len(factory) > MAX_NAME_LENGTH:
        found.append(
            Violation(f"{_CODE}.factory", f"is {echo(factory)}; use the name of a function of the file, as build")
        )
    if not FILE_NAME.fullmatch(architecture.file_name):
        found.append(
            Violation(
                f"{_CODE}.file_name",
                f'is {echo(architecture.file_name)}; use at most 100 letters, digits, "_", "-", "." and spaces, with '
                ".py at the end, or leave it out",
            )
        )
    found += [
        Violation(f"{_CODE}.config", f"has {echo(name)}, which is no name of an argument")
        for name in config
        if not name.isidentifier() or keyword.iskeyword(name)
    ]
    if (size := len(json.dumps(dict(config)))) > MAX_CONFIG_BYTES:
        found.append(Violation(f"{_CODE}.config", f"has {size:,} bytes as JSON; use at most {MAX_CONFIG_BYTES:,}"))
    if found:
        raise InvalidRequestError(found)


def check_source(architecture: CodeArchitecture) -> None:
    """Parse the file, in a process of its own that is ended if it takes too long: a parser holds up all others in its
    process, and what is nested deeply enough may end it. Raises InvalidRequestError naming the line that is wrong."""
    command = [sys.executable, "-I", "-S", str(parsing.__file__), architecture.factory]
    try:
        parsed = subprocess.run(
            command, input=architecture.content, capture_output=True, timeout=PARSE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _bad_source(architecture, f"is not parsed within {PARSE_TIMEOUT_S:.0f} s") from error
    if parsed.returncode != 0:
        raise _bad_source(architecture, "cannot be parsed: the parser ends on it")
    if complaint := json.loads(parsed.stdout):
        raise _bad_source(architecture, complaint)


def _bad_source(architecture: CodeArchitecture, why: str) -> InvalidRequestError:
    return InvalidRequestError.of(_DIGEST, f'blob "{architecture.digest}" ({architecture.file_name}) {why}')


# --- what it makes ---------------------------------------------------------------------------------------------


def described_code(architecture: CodeArchitecture, weights: Arrays) -> Described:
    """What is stored of a network that is code: what was declared, with the shapes of its weights.

    Raises InvalidRequestError if the weights do not have what was declared.
    """
    declared = architecture.declared
    _check_size(declared, weights)
    specs = {name: (value.dtype.name, tuple(value.shape)) for name, value in weights.items()}
    outline = Outline(
        {name: specs[name] for name in declared.parameters if name in specs},
        {name: spec for name, spec in specs.items() if name not in declared.parameters and name not in declared.tied},
        declared.tied,
        declared.batch_norms,
    )
    found = [
        *_wrong_parameters(declared, specs),
        *_wrong_ties(declared, outline, weights),
        *_wrong_batch_norms(outline),
    ]
    if found:
        raise InvalidRequestError(found)
    if outline.num_parameters > MAX_PARAMETERS:
        raise InvalidRequestError.of(
            _WEIGHTS, f"makes a model of {outline.num_parameters:,} parameters; at most {MAX_PARAMETERS:,} are taken"
        )
    return Described(replace(architecture, declared=outline, content=b""), outline.num_parameters)


def check_weights(declared: Outline, weights: Arrays) -> None:
    """Raises InvalidRequestError if weights are not of the names, shapes and dtypes that a network consists of."""
    specs = {name: (value.dtype.name, tuple(value.shape)) for name, value in weights.items()}
    wanted = declared.specs
    wrong = [name for name in {**wanted, **specs} if wanted.get(name) != specs.get(name)]
    if wrong:
        raise InvalidRequestError.of(
            _WEIGHTS, f"does not hold weights of this architecture: it differs in {echo(sorted(wrong))}"
        )


def state_of_code(declared: Outline, weights: Arrays) -> tuple[Arrays, Arrays]:
    """Parameters, in their order, and buffers of weights; each once."""
    return {name: weights[name] for name in declared.parameters}, {name: weights[name] for name in declared.buffers}


def all_names(declared: Outline, values: Mapping[str, Array]) -> Arrays:
    """Values of parameters and buffers under all names that a state_dict has for them."""
    return {**values, **{name: values[of] for name, of in declared.tied.items()}}


def _check_size(declared: Outline, weights: Arrays) -> None:
    for field, count, what in (
        (_WEIGHTS, len(weights), "tensors"),
        (f"{_CODE}.parameters", len(declared.parameters), "names"),
        (f"{_CODE}.tied", len(declared.tied), "names"),
        (f"{_CODE}.batch_norms", len(declared.batch_norms), "layers"),
    ):
        if count > MAX_NAMES:
            raise InvalidRequestError.of(field, f"has {count:,} {what}; a model of code has at most {MAX_NAMES:,}")
    if not declared.parameters:
        raise InvalidRequestError.of(
            f"{_CODE}.parameters", "is empty; name the parameters of the network, in the order of named_parameters()"
        )


def _wrong_parameters(declared: Outline, specs: Mapping[str, Spec]) -> list[Violation]:
    found, known = [], _some(specs)
    for index, name in enumerate(declared.parameters):
        field = f"{_CODE}.parameters[{index}]"
        if name in declared.tied:
            found.append(Violation(field, f"is {echo(name)}, which is in tied, too; leave it out of one of them"))
        elif name not in specs:
            found.append(Violation(field, f"is {echo(name)}, which the weights do not have; they have {known}"))
        elif specs[name][0] not in ("float32", "float64", "float16", "bfloat16"):
            found.append(Violation(field, f"is {echo(name)}, which is {specs[name][0]} in the weights; use float32"))
    return found


def _wrong_ties(declared: Outline, outline: Outline, weights: Arrays) -> list[Violation]:
    known = {**outline.parameters, **outline.buffers}
    found = []
    for name, of in declared.tied.items():
        field = f"{_CODE}.tied"
        if name not in weights:
            found.append(Violation(field, f"has {echo(name)}, which the weights do not have"))
        elif of not in known:
            found.append(Violation(field, f"has {echo(name)} for {echo(of)}, which is no parameter or buffer"))
        elif not _are_same(weights[name], weights[of]):
            found.append(Violation(field, f"has {echo(name)} for {echo(of)}, but the weights differ in them"))
    return found


def _are_same(one: Array, other: Array) -> bool:
    same_kind = (one.dtype, one.shape) == (other.dtype, other.shape)
    return same_kind and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def _wrong_batch_norms(outline: Outline) -> list[Violation]:
    found = []
    for index, (path, momentum) in enumerate(outline.batch_norms.items()):
        field = f"{_CODE}.batch_norms[{index}]"
        specs = [outline.buffers.get(name) for name in statistics_of(path)]
        if specs[0] is None or specs[0][0] != "float32" or specs[0] != specs[1] or specs[2] != ("int64", ()):
            found.append(
                Violation(
                    f"{field}.path",
                    f"is {echo(path)}, but the weights do not have its {', '.join(STATISTICS)} (float32 of one shape "
                    "twice, and one int64) as buffers",
                )
            )
        if momentum is not None and not (math.isfinite(momentum) and 0 <= momentum <= 1):
            found.append(Violation(f"{field}.momentum", f"is {momentum}; use 0 to 1, or leave it out"))
    return found


def _some(specs: Mapping[str, Spec]) -> str:
    return echo(list(specs))
