"""The versions of models, as jobs begin with them and make them: on a connection, within the transaction of a job."""

from __future__ import annotations

from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server import names
from chainrule.server.errors import NotFoundError
from chainrule.server.records import Dataset, Model
from chainrule.server.store import configs, rows, schema
from chainrule.server.store.database import get


@dataclass(frozen=True)
class Inputs:
    """What a job is made of, as it is at one moment."""

    model: Model
    """With the weights of the version that the job begins with."""
    version: int
    dataset: Dataset
    validation: Dataset | None
    """The second dataset, where there is one."""

    def stands_for(self, other: Inputs) -> bool:
        """Whether what was checked of one holds of the other: versions of a model differ in their weights only."""
        return self._checked == other._checked

    @property
    def _checked(self) -> tuple[object, ...]:
        model, second = self.model, self.validation
        return model.architecture, model.create_time, self.dataset.digest, second and second.digest


def version_of(db: Connection, model: str, number: int | None, *, tenant: str) -> RowMapping:
    """The row of a version of a model; None: of the newest. Raises NotFoundError."""
    table = schema.model_versions
    query = sa.select(table).where(table.c.tenant == tenant, table.c.model == model)
    if number is not None:
        query = query.where(table.c.number == number)
    found = db.execute(query.order_by(table.c.number.desc()).limit(1)).mappings().first()
    if found is None:
        name = names.version(model, number) if number is not None else f"{model}/versions/latest"
        raise NotFoundError(
            f'there is no model version "{name}"; list what there is with: chainrule models versions {model}', name=name
        )
    return found


def inputs(
    db: Connection, tenant: str, *, model: str, version: int | None, dataset: str, validation: str = ""
) -> Inputs:
    """Look up what a job is to be made of; version None is the newest, and no validation dataset is "".

    Raises NotFoundError.
    """
    row = get(db, schema.models, model, tenant=tenant)
    found = version_of(db, model, version, tenant=tenant)
    return Inputs(
        model=replace(rows.model(row), weights_digest=found["weights_digest"]),
        version=found["number"],
        dataset=rows.dataset(get(db, schema.datasets, dataset, tenant=tenant)),
        validation=rows.dataset(get(db, schema.datasets, validation, tenant=tenant)) if validation else None,
    )


def append(db: Connection, job: RowMapping, *, weights_digest: str, step: int, now_us: int) -> int:
    """Make the weights of a job the next version of its model; returns its number.

    0 if there is no such model any more. None is removed while a job uses it; but what a job has computed is not to be
    lost if one is.
    """
    models = schema.models
    this = sa.and_(models.c.tenant == job["tenant"], models.c.name == job["model"])
    db.execute(
        models.update().where(this).values(last_version=models.c.last_version + 1, revision=models.c.revision + 1)
    )
    number = db.execute(sa.select(models.c.last_version).where(this)).scalar()
    if number is None:
        return 0
    db.execute(
        schema.model_versions.insert().values(
            tenant=job["tenant"],
            model=job["model"],
            number=number,
            weights_digest=weights_digest,
            job=job["name"],
            parent=job["source_version"],
            dataset=job["dataset"],
            dataset_digest=job["dataset_digest"],
            step=step,
            create_time_us=now_us,
            preparation=configs.transform_values(configs.from_values(job["config"]).augmentation.preparation),
            class_labels=job["class_labels"],
            raw_bytes=_has_no_bytes(db, job),
        )
    )
    return int(number)


def _has_no_bytes(db: Connection, job: RowMapping) -> bool:
    """Whether the dataset of a job holds numbers as they are, so that bytes at a prediction are such numbers, too."""
    datasets = schema.datasets.c
    these = datasets.tenant == job["tenant"], datasets.name == job["dataset"], datasets.digest == job["dataset_digest"]
    columns = db.execute(sa.select(datasets.columns).where(*these)).scalar()
    return columns is not None and not any(column["dtype"] == "uint8" for column in columns)
