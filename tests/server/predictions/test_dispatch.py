"""From a request to its answer, with predictors that do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from chainrule.server.blobs import BlobStore
from chainrule.server.errors import (
    DamagedBlobError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    OutOfMemoryError,
    PredictorLostError,
    PredictorUnavailableError,
    StoreUnavailableError,
    TooManyCallsError,
)
from chainrule.server.models import ModelCatalog
from chainrule.server.predictions import dispatch
from chainrule.server.predictions.batching import Limits
from chainrule.server.predictions.dispatch import MAX_LOST, DefectError, Prediction, Predictions, chosen
from chainrule.server.predictions.messages import Asked, Reason, Refused
from chainrule.server.predictions.versions import ServedVersions
from chainrule.server.store import Store
from chainrule.server.telemetry.metrics import Metrics
from chainrule.server.tenant_blobs import TenantBlobs
from tests.server.predictions.predictors import LIMITS, Crew, Scripted, settled


class World:
    """Models "models/m" and "models/n", and predictors of a crew."""

    def __init__(self, store: Store, blobs: BlobStore, predictions: Predictions, crew: Crew, metrics: Metrics) -> None:
        self.store = store
        self.blobs = blobs
        self.predictions = predictions
        self.crew = crew
        self.metrics = metrics
        self._asking: list[asyncio.Task[Prediction]] = []

    async def ask(self, *values: float, model: str = "models/m", alone: bool = False) -> asyncio.Task[Prediction]:
        """Ask, and let the loop do what it can; looking up a name takes a thread."""
        asked = Asked((("", np.asarray(values, np.float32)),))
        await asyncio.to_thread(self.versions.find, model, tenant="default")
        task = asyncio.create_task(self.predictions.predict(model, asked, tenant="default", alone=alone))
        self._asking.append(task)
        await settled()
        return task

    @property
    def versions(self) -> ServedVersions:
        return self.predictions._versions

    def number(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> ModelCatalog:
    catalog = ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False))
    for seed, model_id in enumerate(("m", "n")):
        catalog.create(model_id, family="mlp", config={}, weights_digest="", init_seed=seed, tenant="default")
    return catalog


@asynccontextmanager
async def serving(
    store: Store, blobs: BlobStore, crew: Crew, *, most: int = 1, limits: Limits = LIMITS
) -> AsyncIterator[World]:
    metrics = Metrics(kernels="reference")
    predictions = Predictions(ServedVersions(store, blobs), most=most, start=crew.start, metrics=metrics, limits=limits)
    async with predictions:
        yield World(store, blobs, predictions, crew, metrics)
    assert all(predictor.closed for predictor in crew.made)


@pytest.fixture
async def world(store: Store, blobs: BlobStore, catalog: ModelCatalog) -> AsyncIterator[World]:
    async with serving(store, blobs, Crew()) as world:
        yield world


def values(asking: asyncio.Task[Prediction]) -> list[float]:
    [(_, array)] = asking.result().result.outputs
    return list(array)


async def test_a_predictor_is_started_with_the_first_request(world: World) -> None:
    assert world.crew.starts == 0
    asking = await world.ask(1, 2)
    assert (world.crew.starts, world.crew.last.rows) == (1, 2)
    world.crew.last.finish()
    await settled()
    assert values(asking) == [1, 2]
    assert asking.result().version.name == "models/m/versions/1"


async def test_what_comes_while_a_batch_is_computed_is_the_next_batch(world: World) -> None:
    first = await world.ask(1)
    others = [await world.ask(2), await world.ask(3)]
    assert world.crew.last.rows == 1
    world.crew.last.finish()
    await settled()
    assert world.crew.last.rows == 2
    world.crew.last.finish()
    await settled()
    assert [values(asking) for asking in (first, *others)] == [[1], [2], [3]]
    assert world.number("chainrule_prediction_batch_examples_count") == 2
    assert world.number("chainrule_predictions_total") == 3


async def test_who_has_gone_before_the_turn_came_is_not_computed(world: World) -> None:
    await world.ask(1)
    gone, other = await world.ask(2), await world.ask(3)
    gone.cancel()
    await settled()
    assert gone.cancelled()
    world.crew.last.finish()
    await settled()
    assert world.crew.last.batch is not None
    assert [list(asked.inputs[0][1]) for asked in world.crew.last.batch[1]] == [[3]]
    world.crew.last.finish()
    await settled()
    assert values(other) == [3]
    assert world.number("chainrule_predictions_waiting") == 0


async def test_who_goes_while_a_batch_is_computed_leaves_the_others_their_answers(world: World) -> None:
    first = await world.ask(1)
    gone, other = await world.ask(2), await world.ask(3)
    world.crew.last.finish()
    await settled()
    gone.cancel()
    await settled()
    world.crew.last.finish()
    await settled()
    assert (values(first), values(other)) == ([1], [3])


async def test_what_a_predictor_has_lost_is_computed_by_another_one_by_one(world: World) -> None:
    first = await world.ask(1)
    others = [await world.ask(2), await world.ask(3)]
    world.crew.last.finish()
    await settled()
    dead = world.crew.last
    dead.die()
    await settled()
    assert dead.closed
    assert world.crew.starts == 2
    for _ in others:
        assert world.crew.last.rows == 1
        world.crew.last.finish()
        await settled()
    assert [values(asking) for asking in (first, *others)] == [[1], [2], [3]]
    assert world.number("chainrule_predictors_lost_total") == 1


async def test_a_request_at_which_predictors_end_is_given_up_and_no_other(world: World) -> None:
    poison = await world.ask(1)
    other = await world.ask(2, model="models/n")
    for _ in range(MAX_LOST):
        assert not poison.done()
        world.crew.last.die()
        await settled()
    with pytest.raises(PredictorLostError, match='3 predictors have ended while they computed this request to "models'):
        poison.result()
    world.crew.last.finish()
    await settled()
    assert values(other) == [2]


async def test_what_nobody_waits_for_any_more_is_not_computed_again(world: World) -> None:
    gone = await world.ask(1)
    gone.cancel()
    await settled()
    world.crew.last.die()
    await settled()
    assert world.crew.starts == 1


async def test_a_predictor_that_ends_idle_is_replaced_when_it_is_needed(world: World) -> None:
    await world.ask(1)
    world.crew.last.finish()
    await settled()
    world.crew.last.die()
    await settled()
    assert world.crew.starts == 1
    asking = await world.ask(2)
    assert world.crew.starts == 2
    world.crew.last.finish()
    await settled()
    assert values(asking) == [2]


async def test_without_a_predictor_requests_are_told_so_and_the_next_tries_again(
    store: Store, blobs: BlobStore, catalog: ModelCatalog
) -> None:
    async with serving(store, blobs, Crew(fails=1)) as world:
        refused = await world.ask(1)
        with pytest.raises(PredictorUnavailableError, match=r"could be started \(no such program\)"):
            refused.result()
        asking = await world.ask(2)
        world.crew.last.finish()
        await settled()
        assert values(asking) == [2]


async def test_another_predictor_is_started_where_all_are_at_work(
    store: Store, blobs: BlobStore, catalog: ModelCatalog
) -> None:
    async with serving(store, blobs, Crew(), most=2) as world:
        await world.ask(1)
        await world.ask(2)
        await world.ask(3)
        first, second = world.crew.made
        assert (first.rows, second.rows) == (1, 1)
        first.finish()
        await settled()
        assert first.rows == 1
        second.finish()
        first.finish()
        await settled()


async def test_a_start_that_fails_beside_others_is_not_repeated_at_once(
    store: Store, blobs: BlobStore, catalog: ModelCatalog
) -> None:
    async with serving(store, blobs, Crew(), most=2) as world:
        first = await world.ask(1)
        world.crew.fails = 100
        second = await world.ask(2)
        assert world.crew.starts == 2
        world.crew.last.finish()
        await settled()
        world.crew.last.finish()
        await settled()
        assert (values(first), values(second)) == ([1], [2])


async def test_a_predictor_that_has_the_network_is_preferred() -> None:
    empty, other, has = (Scripted(lambda _: None, frozenset(held)) for held in ((), "b", "ab"))
    assert chosen([empty, other, has], "a") is has
    assert chosen([other, empty], "a") is empty
    assert chosen([other], "a") is other


async def test_too_many_waiting_are_refused_with_a_time(store: Store, blobs: BlobStore, catalog: ModelCatalog) -> None:
    async with serving(store, blobs, Crew(), limits=Limits(max_rows=1, max_waiting=1)) as world:
        await world.ask(1)
        await world.ask(2)
        with pytest.raises(TooManyCallsError):
            (await world.ask(3)).result()


async def test_without_predictors_there_are_no_predictions(
    store: Store, blobs: BlobStore, catalog: ModelCatalog
) -> None:
    async with serving(store, blobs, Crew(), most=0) as world:
        with pytest.raises(IllegalStateError, match="--predictors"):
            (await world.ask(1)).result()


@pytest.mark.parametrize(
    ("refused", "error", "said"),
    [
        (Refused(Reason.INPUTS, "is wrong", "inputs[0]"), InvalidRequestError, r"inputs\[0\]: is wrong"),
        (Refused(Reason.MEMORY, "too much"), OutOfMemoryError, "too much; send fewer"),
        (Refused(Reason.DEFECT, "oh"), DefectError, "models/m: oh"),
        (Refused(Reason.WEIGHTS, "cannot be read"), StoreUnavailableError, "they are right by now"),
    ],
)
async def test_what_a_predictor_refuses_is_told(
    world: World, refused: Refused, error: type[Exception], said: str
) -> None:
    asking = await world.ask(1)
    world.crew.last.answer(refused)
    with pytest.raises(error, match=said):
        await asking


@pytest.mark.parametrize(("damage", "error"), [("damaged", DamagedBlobError), ("missing", NotFoundError)])
async def test_weights_that_are_not_right_any_more_are_told_as_such(
    world: World, damage: str, error: type[Exception]
) -> None:
    asking = await world.ask(1)
    digest = world.store.get_model("models/m", tenant="default").weights_digest
    file = world.blobs.path(digest)
    file.write_bytes(b"x") if damage == "damaged" else file.unlink()
    world.crew.last.answer(Refused(Reason.WEIGHTS, "they are not right"))
    with pytest.raises(error):
        await asking
    assert not world.blobs.contains(digest)


async def test_where_no_predictor_is_left_one_is_started_when_the_pause_is_over(
    store: Store, blobs: BlobStore, catalog: ModelCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "RESTART_S", 0.01)
    async with serving(store, blobs, Crew(), most=2) as world:
        asking = await world.ask(1)
        world.crew.fails = 1
        await world.ask(2)
        world.crew.started.clear()
        world.crew.last.die()
        await world.crew.started.wait()
        await settled()
        world.crew.made[1].finish()
        await settled()
        assert values(asking) == [1]


# --- names -----------------------------------------------------------------------------------------------------


def test_names_stand_for_versions(store: Store, blobs: BlobStore, catalog: ModelCatalog) -> None:
    versions = ServedVersions(store, blobs)
    for name in ("models/m", "models/m/versions/latest", "models/m/versions/1"):
        assert versions.find(name, tenant="default").name == "models/m/versions/1"
        assert versions.known(name, tenant="default") is not None
    for name in ("models/x", "models/m/versions/2", "models/m/versions/0"):
        with pytest.raises(NotFoundError):
            versions.find(name, tenant="default")
    with pytest.raises(InvalidRequestError) as caught:
        versions.find("datasets/m", tenant="default")
    assert caught.value.violations[0].field == "model"


def test_what_a_name_stands_for_is_forgotten_when_something_is_written(
    store: Store, blobs: BlobStore, catalog: ModelCatalog
) -> None:
    versions = ServedVersions(store, blobs)
    versions.find("models/m", tenant="default")
    assert versions.known("models/m", tenant="other") is None
    assert versions.known("models/m", tenant="default") is not None
    catalog.delete("models/m", tenant="default")
    assert versions.known("models/m", tenant="default") is None
    with pytest.raises(NotFoundError):
        versions.find("models/m", tenant="default")


def test_a_tenant_has_the_models_of_no_other(store: Store, blobs: BlobStore, catalog: ModelCatalog) -> None:
    with pytest.raises(NotFoundError):
        ServedVersions(store, blobs).find("models/m", tenant="other")
