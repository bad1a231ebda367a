"""Networks that a Python file makes, for control flow that no graph can say: the file is run in this process."""

from __future__ import annotations

import hashlib
import inspect
import linecache
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from chainrule.engine import nn
from chainrule.engine.errors import CodeError
from chainrule.engine.models.parsing import complaint
from chainrule.engine.random import Generator, using


@dataclass(frozen=True)
class Source:
    """A Python file, and what in it makes the network."""

    content: bytes = field(repr=False)
    """The file, as UTF-8."""
    factory: str = "build"
    """A function or class at its top level, which gives an nn.Module."""
    config: Mapping[str, object] = field(default_factory=dict)
    """The factory's keyword arguments, of what JSON has."""
    file_name: str = "model.py"
    """What the file is called in tracebacks."""

    def build(self, seed: int = 0) -> nn.Module:
        """Runs the file and calls its factory.

        Whatever draws numbers while it is made, from the default generator, numpy's or Python's, draws what the seed
        says; the generators of this process are put back afterwards.

        Raises:
            CodeError: the file cannot be run, or makes no network; the text names its line.
        """
        if wrong := complaint(self.content, self.factory):
            raise CodeError(f"{self.file_name} {wrong}")
        with all_draws(seed), self._in_own_words():
            make = getattr(self._module(), self.factory)
            made = self._made(make)
        if not isinstance(made, nn.Module):
            raise CodeError(
                f'"{self.factory}" of {self.file_name} gives a {type(made).__name__}; it must give a '
                "chainrule.engine.nn.Module"
            )
        return made

    def place_of(self, error: BaseException) -> str:
        """Where in the file an error comes from, as "net.py, line 7"; empty: from elsewhere."""
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == self.file_name), None)
        return f"{self.file_name}, line {line}" if line else ""

    def raises(self, error: BaseException) -> bool:
        """Whether it is a line of the file that has raised an error, rather than what it calls."""
        return [frame.filename for frame in traceback.extract_tb(error.__traceback__)][-1:] == [self.file_name]

    def told(self, error: BaseException) -> str:
        """An error in a line: where it comes from, its kind, and what it says: "net.py, line 17: ValueError: no"."""
        try:
            said = str(error)
        except Exception:  # noqa: BLE001 — it is the file's own class, and is to be named all the same
            said = "(what it says cannot be told)"
        return f"{self.place_of(error) or self.file_name}: {type(error).__name__}: {said}".rstrip(": ")

    def _made(self, make: Callable[..., object]) -> object:
        try:
            return make(**self.config)
        except TypeError as error:
            known = inspect.isfunction(make) or (inspect.isclass(make) and issubclass(make, nn.Module))
            if self.place_of(error) or not known:
                raise
            raise TypeError(f"{error}; it is {self.factory}{inspect.signature(make)}") from error

    def _module(self) -> ModuleType:
        name = f"chainrule_code_{hashlib.sha256(self.content).hexdigest()[:16]}"
        module = ModuleType(name)
        module.__file__ = self.file_name
        text = self.content.decode("utf-8-sig")
        # Tracebacks show its lines, though they are in no file of this machine.
        linecache.cache[self.file_name] = (len(text), None, text.splitlines(keepends=True), self.file_name)
        sys.modules[name] = module  # dataclasses and pickles look there
        try:
            exec(compile(text, self.file_name, "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    @contextmanager
    def _in_own_words(self) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:
            raise CodeError(self.told(error)) from error


@contextmanager
def all_draws(seed: int) -> Iterator[None]:
    """Draws inside, from the default generator, numpy's global one and Python's, are a function of the seed."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with using(Generator(seed)):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
