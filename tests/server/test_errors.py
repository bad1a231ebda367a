"""Errors cross processes, and repeat to a client only so much of what it sent."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

import chainrule.server
from chainrule.engine import ChainruleError
from chainrule.server import errors
from chainrule.server.training.errors import ObjectiveError


def subclasses(kind: type[ChainruleError]) -> Iterator[type[ChainruleError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


for _module in pkgutil.walk_packages(chainrule.server.__path__, "chainrule.server."):
    if ".migrations." not in _module.name:  # Alembic runs these, and nothing else can
        importlib.import_module(_module.name)
ERRORS = {kind for kind in subclasses(ChainruleError) if kind.__module__.startswith("chainrule.server.")}


@pytest.mark.parametrize("kind", sorted(ERRORS, key=str))
def test_every_error_of_the_server_survives_pickling(kind: type[ChainruleError]) -> None:
    if issubclass(kind, errors.InvalidRequestError):
        error: ChainruleError = kind([errors.Violation("f", "d"), errors.Violation("g", "e")])
    elif kind is ObjectiveError:
        error = kind("losses[0].weight", "is 0")
    else:
        error = kind("m", name="x") if issubclass(kind, errors.ServiceError) else kind("m")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, again.__dict__) == (str(error), error.args, error.__dict__)


@pytest.mark.parametrize(
    ("value", "echoed"),
    [
        ("digits", "'digits'"),
        (1e300, "1e+300"),
        (["a", 1], "['a', 1]"),
        ((1,) * 100, "(1, 1, 1, 1, 1, 1, 1, 1, ...)"),
    ],
)
def test_what_was_sent_is_echoed_briefly(value: object, echoed: str) -> None:
    assert errors.echo(value) == echoed


@pytest.mark.parametrize("value", ["x" * 20_000, ["x" * 20_000] * 200, 10**300, {"a": "x" * 20_000}])
def test_an_echo_is_short(value: object) -> None:
    assert len(errors.echo(value)) < 1000
