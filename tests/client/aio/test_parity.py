"""The two clients are one: derived code is what its source gives, and both have the same names and parameters."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import chainrule.client

DERIVE = Path(str(chainrule.client.__file__)).parents[2] / "derive.py"
SOURCE = Path(str(chainrule.client.__file__)).parent / "aio"
MODULES = sorted(file.stem for file in SOURCE.glob("*.py") if file.stem != "__init__")


def test_the_client_for_threads_is_what_its_source_gives() -> None:
    done = subprocess.run([sys.executable, str(DERIVE), "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def public(module: ModuleType) -> dict[str, inspect.Signature]:
    """The public functions and methods of a module by name, without the word that tells the two apart."""
    found: dict[str, inspect.Signature] = {}
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__ or name.startswith("_"):
            continue
        if isinstance(thing, FunctionType):
            found[name] = inspect.signature(thing)
        elif inspect.isclass(thing):
            short = name.removeprefix("Async")
            for key, member in vars(thing).items():
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                is_public = not key.startswith("_") or key == "__init__"
                if is_public and isinstance(function, FunctionType):
                    found[f"{short}.{key}"] = inspect.signature(function)
    return found


def test_every_module_but_the_runtime_is_derived() -> None:
    for name in set(MODULES) - {"runtime"}:
        assert f"# Derived from aio/{name}.py" in (SOURCE.parent / f"{name}.py").read_text()


@pytest.mark.parametrize("name", MODULES)
def test_both_clients_have_the_same_methods_with_the_same_parameters(name: str) -> None:
    ours = public(importlib.import_module(f"chainrule.client.aio.{name}"))
    theirs = public(importlib.import_module(f"chainrule.client.{name}"))
    assert list(ours) == list(theirs)
    for key, signature in ours.items():
        other = theirs[key]
        assert list(signature.parameters) == list(other.parameters), key
        for parameter, twin in zip(signature.parameters.values(), other.parameters.values(), strict=True):
            both_are_lambdas = callable(parameter.default) and callable(twin.default)
            assert parameter.kind is twin.kind, f"{key}({parameter.name})"
            assert both_are_lambdas or parameter.default == twin.default, f"{key}({parameter.name})"


def test_every_public_name_of_the_one_client_has_a_twin() -> None:
    asynchronous = {name for name in chainrule.client.__all__ if name.startswith("Async")}
    assert asynchronous == {"AsyncClient", "AsyncJob", "AsyncModel", "AsyncModelVersion"}
    assert {name.removeprefix("Async") for name in asynchronous} <= set(chainrule.client.__all__)
