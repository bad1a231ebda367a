"""Models, their versions, and datasets in the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server import names
from chainrule.server.annotations import AnnotationChange
from chainrule.server.errors import (
    AlreadyExistsError,
    IllegalStateError,
)
from chainrule.server.records import Dataset, JobState, Model, ModelVersion
from chainrule.server.store import listings, requests, rows, schema, versions
from chainrule.server.store.database import Database, check_etag, find, get
from chainrule.server.store.paging import PageRequest, page
from chainrule.server.store.requests import NO_REQUEST, Request

_MAX_NAMED_JOBS = 3
"""How many of the jobs that use something are named."""


class CatalogTables(Database):
    """What can be trained, and on what. Each tenant has its own, and does not find that of others."""

    # --- models ------------------------------------------------------------------------------------------------

    def create_model(
        self, model: Model, *, tenant: str, request: Request = NO_REQUEST, validate_only: bool = False
    ) -> Model:
        """Store a model with its first version, or return what the request has made before, or the one of that name if
        it is the same. With `validate_only` nothing is stored. Raises AlreadyExistsError, or NotFoundError if what the
        request has made was removed."""
        with self._read() if validate_only else self._write() as db:
            known = requests.made(db, schema.models, request, tenant=tenant)
            if known is not None:
                return _model(db, known)
            row = find(db, schema.models, model.name, tenant=tenant)
            if row is not None:
                _check_same_model(rows.model(row), model)
            if validate_only:
                return model if row is None else _model(db, row)
            now = self._now_us()
            if row is None:
                _insert_model(db, model, tenant, now)
            made = get(db, schema.models, model.name, tenant=tenant)
            requests.record(db, request, model.name, tenant=tenant, now_us=max(now, made["create_time_us"]))
            return _model(db, made)

    def model_of_request(self, request: Request, *, tenant: str) -> Model | None:
        """What a request has made before, if anything. Raises AlreadyExistsError or NotFoundError, as
        `create_model`."""
        with self._read() as db:
            known = requests.made(db, schema.models, request, tenant=tenant)
            return None if known is None else _model(db, known)

    def get_model(self, name: str, *, tenant: str) -> Model:
        """Raises NotFoundError."""
        with self._read() as db:
            return _model(db, get(db, schema.models, name, tenant=tenant))

    def list_models(self, asked: PageRequest, *, tenant: str) -> tuple[list[Model], str]:
        """A page, and the token of the next. Raises InvalidRequestError."""
        query = sa.select(schema.models).where(schema.models.c.tenant == tenant)
        with self._read() as db:
            found, token = page(db, query, listings.MODELS, asked, scope=tenant)
            latest = _latest_versions(db, tenant, [row["name"] for row in found])
            return [rows.model(row, latest_version=latest[row["name"]]) for row in found], token

    def update_model(self, name: str, change: AnnotationChange, *, tenant: str, etag: str = "") -> Model:
        """Change what is noted on a model. Raises NotFoundError, or StaleEtagError if it has another etag."""
        with self._write() as db:
            row = get(db, schema.models, name, tenant=tenant)
            check_etag(name, rows.model(row).etag, etag)
            return _model(db, _annotated(db, schema.models, row, change))

    def delete_model(self, name: str, *, tenant: str, etag: str = "") -> None:
        """Remove a model with all its versions. Raises NotFoundError, StaleEtagError if it has another etag, or
        IllegalStateError if a job uses it that has not ended."""
        with self._write() as db:
            row = get(db, schema.models, name, tenant=tenant)
            check_etag(name, rows.model(row).etag, etag)
            _check_unused(db, name, schema.jobs.c.tenant == tenant, schema.jobs.c.model == name)
            table = schema.model_versions
            db.execute(table.delete().where(table.c.tenant == tenant, table.c.model == name))
            db.execute(schema.models.delete().where(schema.models.c.id == row["id"]))

    # --- versions ----------------------------------------------------------------------------------------------

    def get_version(self, model: str, number: int | None, *, tenant: str) -> ModelVersion:
        """A version of a model, the newest for None. Raises NotFoundError."""
        with self._read() as db:
            get(db, schema.models, model, tenant=tenant)
            return rows.model_version(versions.version_of(db, model, number, tenant=tenant))

    def get_model_version(self, model: str, number: int | None, *, tenant: str) -> tuple[Model, ModelVersion]:
        """A model and a version of it, the newest for None, as they are at one moment. Raises NotFoundError."""
        with self._read() as db:
            row = get(db, schema.models, model, tenant=tenant)
            return _model(db, row), rows.model_version(versions.version_of(db, model, number, tenant=tenant))

    def list_versions(self, model: str, asked: PageRequest, *, tenant: str) -> tuple[list[ModelVersion], str]:
        """A page of a model's versions, newest first, and the token of the next. Raises NotFoundError if there is no
        such model, or InvalidRequestError."""
        table = schema.model_versions
        with self._read() as db:
            get(db, schema.models, model, tenant=tenant)
            query = sa.select(table).where(table.c.tenant == tenant, table.c.model == model)
            found, token = page(db, query, listings.MODEL_VERSIONS, asked, scope=f"{tenant}/{model}")
            return [rows.model_version(row) for row in found], token

    def delete_version(self, model: str, number: int, *, tenant: str) -> None:
        """Remove a version of a model, whose number is not used again. Raises NotFoundError, or IllegalStateError if it
        is the first, or a job began with it that has not ended."""
        with self._write() as db:
            row = versions.version_of(db, model, number, tenant=tenant)
            name = names.version(model, number)
            if number == 1:
                raise IllegalStateError(
                    f'"{name}" is what the model was created with, and stays as long as the model; delete "{model}" to '
                    "remove it with all its versions",
                    name=name,
                )
            jobs, models = schema.jobs.c, schema.models
            _check_unused(db, name, jobs.tenant == tenant, jobs.model == model, jobs.source_version == number)
            db.execute(schema.model_versions.delete().where(schema.model_versions.c.id == row["id"]))
            this = sa.and_(models.c.tenant == tenant, models.c.name == model)
            db.execute(models.update().where(this).values(revision=models.c.revision + 1))

    # --- datasets ----------------------------------------------------------------------------------------------

    def create_dataset(
        self,
        dataset: Dataset,
        *,
        tenant: str,
        chunks: Sequence[str] = (),
        request: Request = NO_REQUEST,
        validate_only: bool = False,
    ) -> Dataset:
        """Store a dataset whose blob names these others as its chunks, or return what the request has made before, or
        the one of that name if it is the same. With `validate_only` nothing is stored. Raises AlreadyExistsError, or
        NotFoundError if what the request has made was removed."""
        with self._read() if validate_only else self._write() as db:
            known = requests.made(db, schema.datasets, request, tenant=tenant)
            if known is not None:
                return rows.dataset(known)
            row = find(db, schema.datasets, dataset.name, tenant=tenant)
            if row is not None:
                _check_same_dataset(rows.dataset(row), dataset)
            if validate_only:
                return dataset if row is None else rows.dataset(row)
            now = self._now_us()
            if row is None:
                values = asdict(dataset) | {"tenant": tenant, "create_time_us": now}
                del values["create_time"]
                db.execute(schema.datasets.insert().values(**values))
            made = get(db, schema.datasets, dataset.name, tenant=tenant)
            if row is None and chunks:
                of = {"dataset": made["id"], "tenant": tenant}
                found = [{**of, "number": number, "digest": digest} for number, digest in enumerate(chunks)]
                db.execute(schema.dataset_chunks.insert(), found)
            requests.record(db, request, dataset.name, tenant=tenant, now_us=max(now, made["create_time_us"]))
            return rows.dataset(made)

    def dataset_of_request(self, request: Request, *, tenant: str) -> Dataset | None:
        """What a request has made before, if anything. Raises AlreadyExistsError or NotFoundError, as
        `create_dataset`."""
        with self._read() as db:
            known = requests.made(db, schema.datasets, request, tenant=tenant)
            return None if known is None else rows.dataset(known)

    def get_dataset(self, name: str, *, tenant: str) -> Dataset:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.dataset(get(db, schema.datasets, name, tenant=tenant))

    def list_datasets(self, asked: PageRequest, *, tenant: str) -> tuple[list[Dataset], str]:
        """A page, and the token of the next. Raises InvalidRequestError."""
        query = sa.select(schema.datasets).where(schema.datasets.c.tenant == tenant)
        with self._read() as db:
            found, token = page(db, query, listings.DATASETS, asked, scope=tenant)
            return [rows.dataset(row) for row in found], token

    def update_dataset(self, name: str, change: AnnotationChange, *, tenant: str, etag: str = "") -> Dataset:
        """Change what is noted on a dataset. Raises NotFoundError, or StaleEtagError if it has another etag."""
        with self._write() as db:
            row = get(db, schema.datasets, name, tenant=tenant)
            check_etag(name, rows.dataset(row).etag, etag)
            return rows.dataset(_annotated(db, schema.datasets, row, change))

    def delete_dataset(self, name: str, *, tenant: str, etag: str = "") -> None:
        """Remove a dataset. Raises NotFoundError, StaleEtagError if it has another etag, or IllegalStateError if a job
        trains or validates on it that has not ended."""
        jobs = schema.jobs.c
        with self._write() as db:
            row = get(db, schema.datasets, name, tenant=tenant)
            check_etag(name, rows.dataset(row).etag, etag)
            validates = jobs.config[("validation", "dataset")].as_string() == name
            _check_unused(db, name, jobs.tenant == tenant, sa.or_(jobs.dataset == name, validates))
            db.execute(schema.dataset_chunks.delete().where(schema.dataset_chunks.c.dataset == row["id"]))
            db.execute(schema.datasets.delete().where(schema.datasets.c.id == row["id"]))


# --- what all have in common -----------------------------------------------------------------------------------


def _check_unused(db: Connection, name: str, *uses: sa.ColumnElement[bool]) -> None:
    """Raises IllegalStateError if jobs that have not ended use a resource."""
    running = [state.value for state in JobState if not state.terminal]
    query = sa.select(schema.jobs.c.name, schema.jobs.c.state).where(schema.jobs.c.state.in_(running), *uses)
    jobs = db.execute(query.order_by(schema.jobs.c.id)).all()
    if jobs:
        shown = ", ".join(f'"{job}" ({state})' for job, state in jobs[:_MAX_NAMED_JOBS])
        more = f", and {len(jobs) - _MAX_NAMED_JOBS} more" if len(jobs) > _MAX_NAMED_JOBS else ""
        raise IllegalStateError(
            f'"{name}" is in use by {shown}{more}; let them come to their end, or cancel them', name=name
        )


def _annotated(db: Connection, table: sa.Table, row: RowMapping, change: AnnotationChange) -> RowMapping:
    """The row with other annotations, and with another revision if they are others."""
    wanted = {"labels": change.labels, "description": change.description}
    values: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None and value != row[key]}
    this = table.c.id == row["id"]
    if values:
        db.execute(table.update().where(this).values(**values, revision=row["revision"] + 1))
    return db.execute(sa.select(table).where(this)).mappings().one()


# --- models ----------------------------------------------------------------------------------------------------


def _model(db: Connection, row: RowMapping) -> Model:
    name = row["name"]
    return rows.model(row, latest_version=_latest_versions(db, row["tenant"], [name])[name])


def _latest_versions(db: Connection, tenant: str, models: Sequence[str]) -> dict[str, int]:
    """Number of the newest version of each of some models."""
    table = schema.model_versions.c
    query = sa.select(table.model, sa.func.max(table.number).label("newest")).where(
        table.tenant == tenant, table.model.in_(models)
    )
    return {row.model: row.newest for row in db.execute(query.group_by(table.model))}


def _insert_model(db: Connection, model: Model, tenant: str, now_us: int) -> None:
    values = asdict(model) | {"tenant": tenant, "init_seed": str(model.init_seed), "create_time_us": now_us}
    del values["create_time"]
    values["last_version"] = values.pop("latest_version")
    del values["architecture"]
    values |= rows.architecture_values(model.architecture)
    db.execute(schema.models.insert().values(**values))
    db.execute(
        schema.model_versions.insert().values(
            tenant=tenant,
            model=model.name,
            number=model.latest_version,
            weights_digest=model.weights_digest,
            job="",
            parent=0,
            dataset="",
            dataset_digest="",
            step=0,
            create_time_us=now_us,
            preparation=[],
            class_labels=[],
            raw_bytes=False,
        )
    )


def _check_same_model(known: Model, wanted: Model) -> None:
    """Raises AlreadyExistsError. Labels and description may differ: they do not make another model."""
    if (known.architecture, known.weights_digest, known.class_labels) != (
        wanted.architecture,
        wanted.weights_digest,
        wanted.class_labels,
    ):
        raise AlreadyExistsError(
            f'there is already a model "{known.name}", with another architecture or other weights; '
            "models do not change: choose another name",
            name=known.name,
        )


def _check_same_dataset(known: Dataset, wanted: Dataset) -> None:
    """Raises AlreadyExistsError. Labels and description may differ: they do not make another dataset."""
    if known.digest != wanted.digest:
        raise AlreadyExistsError(
            f'there is already a dataset "{known.name}" with other content (SHA-256 {known.digest}); '
            "datasets do not change: choose another name",
            name=known.name,
        )
