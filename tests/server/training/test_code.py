"""Training runs of code: the same bits with any number of workers, run by workers alone."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io
from chainrule.engine.models import outline_of
from chainrule.server.architecture import RUNS_CODE, CodeArchitecture
from chainrule.server.training.events import Failed, Finished, Logged
from chainrule.server.training.examples import Examples
from chainrule.server.training.layout import count_partitions, with_partitions
from chainrule.server.training.placement import runtime_environment
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState
from tests.server.training.bench import Bench, tiny_plan
from tests.server.training.runs import run
from tests.server.training.test_attempt import IN_THREADS

NET = """
import chainrule.engine as cr
from chainrule.engine import nn


class Settling(nn.Module):
    \"\"\"Goes through its layer until the outputs are small: how often depends on the inputs.\"\"\"

    def __init__(self, hidden, most):
        super().__init__()
        self.first = nn.Linear(6, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.again = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 3)
        self.dropout = nn.Dropout(0.2)
        self.most, self.times = most, []

    def forward(self, x):
        h, times = self.norm(self.first(x)), 0
        while h.abs().mean().item() > 0.5 and times < self.most:
            h, times = self.again(h).tanh(), times + 1
        if x.sum().item() > 0:
            h = h.relu()
        self.times.append(times)
        if {fails} and len(self.times) > 2:
            raise LookupError("it has settled " + str(id(x)))
        return self.last(self.dropout(h))


def build(hidden=8, most=3):
    return Settling(hidden, most)
"""


def code(text: str = NET.format(fails=False), **config: object) -> CodeArchitecture:
    content = text.encode()
    found = CodeArchitecture(io.digest(content), config=config, file_name="net.py", content=content, seed=4)
    return replace(found, declared=outline_of(found.source.build(found.seed)))


def plan_of(architecture: CodeArchitecture | None = None, num_validation: int = 0, **config: Any) -> Plan:
    plan = tiny_plan(num_validation, **{"receipt_every_steps": 1, "max_workers": 4, "shards": 4, **config})
    return replace(plan, architecture=architecture or code())


def data(plan: Plan) -> Examples:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(plan.num_examples, 6)).astype(np.float32)
    return Examples(inputs, rng.integers(0, 3, size=plan.num_examples))


def first_state(plan: Plan) -> TrainingState:
    assert isinstance(plan.architecture, CodeArchitecture)
    module = plan.architecture.source.build(4)
    parameters = {name: value.data.copy() for name, value in module.named_parameters()}
    return TrainingState(0, parameters, {name: np.array(value.data) for name, value in module.named_buffers()})


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this process count as one that was started for the code: where workers are threads of it."""
    monkeypatch.setenv(RUNS_CODE, code().digest)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_any_number_of_workers_has_the_same_bits(workers: int) -> None:
    plan = plan_of(num_validation=10)
    settings: dict[str, Any] = {"data": data(plan), "validation": data(replace(plan, num_examples=10))}
    found = await run(plan, state=first_state(plan), workers=workers, **settings, **IN_THREADS)
    assert found.last == Finished(6)
    by_hand = Bench(plan_of(), examples=data(plan), state=first_state(plan)).run()
    assert found.digest == by_hand.digest()
    assert int(found.state.buffers["norm.num_batches_tracked"]) == 6
    again = Bench(plan_of(), examples=data(plan), state=first_state(plan))
    again.run()
    module: Any = again.computation.model
    assert len(set(module.times)) > 1  # shards went different ways


async def test_processes_that_are_no_workers_need_not_run_it() -> None:
    """Only workers are started for it, and what is started for something else refuses."""
    plan = plan_of(max_workers=2, partitions=2)
    assert (count_partitions(plan), with_partitions(plan_of(), nodes=3).config.partitions) == (2, 1)
    found = await run(plan, data=data(plan), state=first_state(plan), workers=2)
    assert found.last == Finished(6)
    with pytest.raises(cr.CodeError, match=r"net.py is run by workers only, in processes that were started for it"):
        plan.architecture.build()


def test_a_process_that_was_started_for_other_code_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS_CODE, io.digest(b"other"))
    with pytest.raises(cr.CodeError, match="started for it"):
        code().build()


def test_a_file_that_was_damaged_on_its_way_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = code()
    monkeypatch.setenv(RUNS_CODE, found.digest)
    with pytest.raises(cr.CodeError, match="does not have the SHA-256"):
        replace(found, content=b"raise SystemExit").build()


def test_ray_starts_a_process_for_each_worker_with_an_environment_of_its_own() -> None:
    environment = runtime_environment(code())["runtime_env"]["env_vars"]
    assert environment == {RUNS_CODE: code().digest, "PYTHONHASHSEED": "0"}
    assert runtime_environment(tiny_plan().architecture) == {}
    assert RUNS_CODE not in os.environ


@pytest.mark.usefixtures("everywhere")
def test_a_network_that_is_not_as_declared_is_refused() -> None:
    other = replace(code(), config={"hidden": 9})
    with pytest.raises(
        cr.CodeError, match=r'"build" of net.py makes is not that .* its "first.weight" is float32 \[9, 6\]'
    ):
        other.build()


COUNTING = """
from chainrule.engine import nn
import chainrule.engine as cr


class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("calls", cr.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return self.layer(x)
"""


async def test_code_cannot_write_to_what_all_workers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = code(COUNTING)
    monkeypatch.setenv(RUNS_CODE, architecture.digest)
    plan = plan_of(architecture)
    found = await run(plan, data=data(plan), state=first_state(plan), workers=1, **IN_THREADS)
    assert isinstance(found.last, Failed)
    assert found.last.message.startswith("two workers failed in the same way: net.py, line 13: ")
    assert "read-only" in found.last.message


async def test_an_error_ends_the_job_with_its_line_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = code(NET.format(fails=True))
    monkeypatch.setenv(RUNS_CODE, architecture.digest)
    plan = plan_of(architecture)
    found = await run(plan, data=data(plan), state=first_state(plan), workers=1, **IN_THREADS)
    assert isinstance(found.last, Failed)
    assert found.last.reason == "TRAINING_ERROR"
    assert not found.last.lost
    assert found.last.message.startswith(
        "3 workers failed at the same place; the last: net.py, line 26: LookupError: it"
    )
    assert 'raise LookupError("it has settled "' in found.last.traceback
    logged = [entry.message for event in found.of(Logged) for entry in event.entries]
    assert any("net.py, line 26: LookupError" in message for message in logged)


RAISING = """
import sys
from chainrule.engine import nn


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("it does not say")


class Ending(BaseException):
    def __reduce__(self):
        return exec, ("import os; os.environ['CHAINRULE_UNPICKLED'] = '1'",)


class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        {statement}
"""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("raise Odd()", "Odd: (what it says cannot be told)"),
        ("raise Ending('now')", "Ending: now"),
        ("sys.exit(3)", "SystemExit: 3"),
        (r"raise ValueError('half \udcff, and \0')", "ValueError: half ?, and \N{REPLACEMENT CHARACTER}"),
    ],
)
async def test_what_code_raises_stays_in_its_process_and_is_told_as_text(
    statement: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A traceback with half a surrogate is no text, which reports of tests have to be.
    monkeypatch.setattr(logging.getLogger("chainrule.server.training.control"), "disabled", True)
    architecture = code(RAISING.format(statement=statement))
    monkeypatch.setenv(RUNS_CODE, architecture.digest)
    plan = plan_of(architecture)
    found = await run(plan, data=data(plan), state=first_state(plan), workers=1, **IN_THREADS)
    assert isinstance(found.last, Failed)
    assert found.last.message == f"two workers failed in the same way: net.py, line 22: {said}"


async def test_what_code_says_at_length_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = code(RAISING.format(statement="raise ValueError('x' * 1_000_000)"))
    monkeypatch.setenv(RUNS_CODE, architecture.digest)
    plan = plan_of(architecture)
    found = await run(plan, data=data(plan), state=first_state(plan), workers=1, **IN_THREADS)
    assert isinstance(found.last, Failed)
    assert max(len(found.last.message), len(found.last.traceback)) < 10_000


DRAWING = """
import numpy as np
from chainrule.engine import nn


class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.inputs, self.output_names = 2, 3

    def forward(self, x):
        return self.layer(x) * float(np.random.rand())
"""


def test_what_code_draws_in_evaluations_does_not_depend_on_what_was_drawn_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its attributes may be called as those of a graph are."""
    architecture = code(DRAWING)
    monkeypatch.setenv(RUNS_CODE, architecture.digest)
    plan = plan_of(architecture, num_validation=10)
    settings: dict[str, Any] = {"data": data(plan), "validation": data(replace(plan, num_examples=10))}
    losses = []
    for seed in (0, 1):
        np.random.seed(seed)  # what a worker has drawn before
        bench = Bench(plan, examples=settings["data"], validation=settings["validation"], state=first_state(plan))
        bench.run()
        losses.append([evaluation.loss for evaluation in bench.partitions[0].evaluations])
    assert losses[0] == losses[1] != []
