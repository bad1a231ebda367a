"""Models and datasets in the store."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa

from chainrule.server.errors import AlreadyExistsError
from chainrule.server.records import Dataset, Model
from chainrule.server.store import listings, rows, schema
from chainrule.server.store.database import Database, find, get
from chainrule.server.store.paging import PageRequest, page

_OWNED = {"tenant": schema.DEFAULT_TENANT, "labels": {}, "description": "", "revision": 1}


class CatalogTables(Database):
    """What can be trained, and on what."""

    # --- models ------------------------------------------------------------------------------------------------

    def create_model(self, model: Model) -> Model:
        """Store a model, or return the one of that name if it is the same. Raises AlreadyExistsError."""
        with self._write() as db:
            row = find(db, schema.models, model.name)
            if row is None:
                now = self._now_us()
                values = asdict(model) | {"init_seed": str(model.init_seed), "create_time_us": now}
                del values["create_time"]
                db.execute(schema.models.insert().values(**values, **_OWNED, last_version=1))
                db.execute(
                    schema.model_versions.insert().values(
                        tenant=schema.DEFAULT_TENANT,
                        model=model.name,
                        number=1,
                        weights_digest=model.weights_digest,
                        job="",
                        parent=0,
                        dataset="",
                        dataset_digest="",
                        step=0,
                        create_time_us=now,
                    )
                )
                return rows.model(get(db, schema.models, model.name))
            known = rows.model(row)
            wanted = (model.family, dict(model.family_config), model.weights_digest)
            if (known.family, dict(known.family_config), known.weights_digest) != wanted:
                raise AlreadyExistsError(
                    f'there is already a model "{model.name}", with another architecture or other weights; '
                    "models do not change: choose another name",
                    name=model.name,
                )
            return known

    def get_model(self, name: str) -> Model:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.model(get(db, schema.models, name))

    def list_models(self, asked: PageRequest) -> tuple[list[Model], str]:
        """A page, and the token of the next. Raises InvalidRequestError."""
        with self._read() as db:
            found, token = page(db, sa.select(schema.models), listings.MODELS, asked)
            return [rows.model(row) for row in found], token

    # --- datasets ----------------------------------------------------------------------------------------------

    def create_dataset(self, dataset: Dataset) -> Dataset:
        """Store a dataset, or return the one of that name if it is the same. Raises AlreadyExistsError."""
        with self._write() as db:
            row = find(db, schema.datasets, dataset.name)
            if row is None:
                values = asdict(dataset) | {"create_time_us": self._now_us()}
                del values["create_time"]
                db.execute(schema.datasets.insert().values(**values, **_OWNED))
                return rows.dataset(get(db, schema.datasets, dataset.name))
            known = rows.dataset(row)
            if known.digest != dataset.digest:
                raise AlreadyExistsError(
                    f'there is already a dataset "{dataset.name}" with other content (SHA-256 {known.digest}); '
                    "datasets do not change: choose another name",
                    name=dataset.name,
                )
            return known

    def get_dataset(self, name: str) -> Dataset:
        """Raises NotFoundError."""
        with self._read() as db:
            return rows.dataset(get(db, schema.datasets, name))

    def list_datasets(self, asked: PageRequest) -> tuple[list[Dataset], str]:
        """A page, and the token of the next. Raises InvalidRequestError."""
        with self._read() as db:
            found, token = page(db, sa.select(schema.datasets), listings.DATASETS, asked)
            return [rows.dataset(row) for row in found], token
