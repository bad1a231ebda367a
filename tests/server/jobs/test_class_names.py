"""What the classes are called of the version that a job makes."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.server.architecture import Builtin
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import InvalidRequestError
from chainrule.server.records import JobState, ModelVersion
from chainrule.server.store import PageRequest, Store
from chainrule.server.training.augmentation import Augmentation, Normalize, RandomFlip
from chainrule.server.training.config import Loss, TrainingConfig
from tests.server.jobs.submitting import Catalogs

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def catalogs(store: Store, blobs: BlobStore) -> Catalogs:
    made = Catalogs(store, blobs)
    content = io.save({"inputs": np.zeros((6, 1, 8, 8), np.float32), "targets": np.arange(6) % 3})
    made.datasets.create("pets", digest=blobs.put(content), tenant="default", class_labels=NAMES)
    return made


def model(catalogs: Catalogs, name: str, *, outputs: int = 3, class_labels: tuple[str, ...] = ()) -> str:
    return catalogs.models.create(
        name,
        architecture=Builtin("small_cnn", {"width": 2, "num_classes": outputs}),
        weights_digest="",
        init_seed=0,
        tenant="default",
        class_labels=class_labels,
    ).name


def made_version(
    catalogs: Catalogs, store: Store, name: str, config: TrainingConfig, dataset: str = "datasets/pets"
) -> ModelVersion:
    """What the job has made, once it has succeeded."""
    catalogs.submit(model=name, dataset=dataset, config=config)
    [job] = store.list_jobs(PageRequest())[0]
    for state in (JobState.PREPARING, JobState.RUNNING, JobState.FINALIZING):
        store.transition(job.name, state)
    store.transition(job.name, JobState.SUCCEEDED, weights_digest="a" * 64, weights_step=1)
    return store.list_versions(name, PageRequest(), tenant="default")[0][0]


def test_a_version_has_the_names_of_its_dataset_and_the_preparation_of_its_job(
    catalogs: Catalogs, store: Store
) -> None:
    augmentation = Augmentation((RandomFlip(), Normalize((0.5,), (2.0,))))
    config = TrainingConfig(epochs=1, batch_size=2, augmentation=augmentation)
    version = made_version(catalogs, store, model(catalogs, "plain"), config)
    assert (version.class_labels, version.preparation) == (NAMES, (Normalize((0.5,), (2.0,)),))


@pytest.mark.parametrize(("dtype", "raw"), [("float32", True), ("uint8", False)])
def test_a_version_takes_bytes_as_its_dataset_does(catalogs: Catalogs, store: Store, dtype: str, raw: bool) -> None:
    """Arrays of bytes are sent as float32 of the same values, unless they are said to be pictures."""
    content = io.save({"inputs": np.zeros((6, 1, 8, 8), dtype), "targets": np.arange(6) % 3})
    catalogs.datasets.create("bytes", digest=catalogs.blobs.put(content), tenant="default")
    config = TrainingConfig(epochs=1, batch_size=2)
    name = model(catalogs, "of-bytes")
    assert made_version(catalogs, store, name, config, "datasets/bytes").raw_bytes is raw
    assert not store.get_model_version(name, 1, tenant="default")[1].raw_bytes


@pytest.mark.parametrize(
    ("outputs", "class_labels", "losses"),
    [
        (4, (), ()),  # which of the four has no name, nobody says
        (3, NAMES, ()),  # the model says so itself
    ],
)
def test_a_version_takes_no_names_where_they_do_not_fit_or_the_model_has_them(
    catalogs: Catalogs, store: Store, outputs: int, class_labels: tuple[str, ...], losses: tuple[Loss, ...]
) -> None:
    name = model(catalogs, "other", outputs=outputs, class_labels=class_labels)
    config = TrainingConfig(epochs=1, batch_size=2, losses=losses)
    version = made_version(catalogs, store, name, config)
    assert (version.class_labels, version.preparation) == ((), ())


def test_other_names_than_those_of_the_model_are_refused(catalogs: Catalogs) -> None:
    name = model(catalogs, "swapped", class_labels=("cat", "owl", "dog"))
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(model=name, dataset="datasets/pets", config=TrainingConfig(epochs=1, batch_size=2))
    [violation] = caught.value.violations
    assert violation.field == "job.dataset"
    assert "calls class 1 'dog', but \"models/swapped\" calls it 'owl'" in violation.description
