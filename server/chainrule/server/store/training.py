"""What training leaves in the store: metrics, evaluations, events, receipts, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chainrule.server.records import NO_RECEIPT, Checkpoint, Receipt
from chainrule.server.store import configs, listings, rows, schema
from chainrule.server.store.database import Database, get
from chainrule.server.store.paging import PageRequest, page
from chainrule.server.training.state import EvaluationMetric, StepMetric
from chainrule.server.training.watching import Watched, watched

ALL_METRICS_STEPS = 10_000
"""Of how many of a job's latest steps all metrics are kept."""
METRICS_STRIDE = 10
"""Of earlier steps every such one's are kept, and of the first."""


class TrainingTables(Database):
    """What is recorded of a job while it trains. Where a tenant is given, a job of another one is not found."""

    # --- metrics and evaluations -------------------------------------------------------------------------------

    def add_metrics(self, name: str, metrics: Sequence[StepMetric]) -> None:
        """Store the metrics of steps. A step that is there already was computed again, with the same result.

        As many as come, so many fall behind the latest ALL_METRICS_STEPS, and are thinned out in the same transaction:
        the work is that of the new ones, however long the job is, and what is kept does not depend on when somebody
        tidies up.
        """
        with self._write() as db:
            latest = sa.select(sa.func.max(schema.metrics.c.step)).where(schema.metrics.c.job == name)
            known = db.execute(latest).scalar() or 0
            new = [
                {
                    "job": name,
                    "step": metric.step,
                    "epoch": metric.epoch,
                    "loss": _stored(metric.loss),
                    "accuracy": metric.accuracy,
                    "num_examples": metric.num_examples,
                    "time_us": round(metric.time_s * 1e6),
                    "measured": rows.stored_values(metric.values),
                }
                for metric in metrics
                if metric.step > known
            ]
            if new:
                db.execute(schema.metrics.insert(), new)
                last = max(metric.step for metric in metrics)
                _thin_out(db, name, known - ALL_METRICS_STEPS, last - ALL_METRICS_STEPS)

    def metrics(self, name: str, *, after_step: int, limit: int, tenant: str | None = None) -> list[StepMetric]:
        """Metrics of the steps after `after_step`, in order. Raises NotFoundError if there is no such job."""
        table = schema.metrics.c
        query = sa.select(schema.metrics).where(table.job == name, table.step > after_step)
        with self._read() as db:
            get(db, schema.jobs, name, tenant=tenant)
            found = db.execute(query.order_by(table.step).limit(limit)).mappings().all()
        return [rows.metric(row) for row in found]

    def latest_metric(self, name: str) -> StepMetric | None:
        """The metric of the last step that is stored."""
        table = schema.metrics
        query = sa.select(table).where(table.c.job == name).order_by(table.c.step.desc()).limit(1)
        with self._read() as db:
            row = db.execute(query).mappings().first()
        return None if row is None else rows.metric(row)

    def add_evaluation(self, name: str, metric: EvaluationMetric) -> None:
        """Store an evaluation. One of the same epoch was made again, with the same result."""
        table = schema.evaluations
        with self._write() as db:
            same = sa.select(table.c.epoch).where(table.c.job == name, table.c.epoch == metric.epoch)
            if db.execute(same).first() is None:
                db.execute(
                    table.insert().values(
                        job=name,
                        epoch=metric.epoch,
                        step=metric.step,
                        loss=_stored(metric.loss),
                        accuracy=metric.accuracy,
                        num_examples=metric.num_examples,
                        time_us=round(metric.time_s * 1e6),
                        measured=rows.stored_values(metric.values),
                    )
                )

    def evaluations(self, name: str) -> tuple[EvaluationMetric, ...]:
        """All evaluations of a job, oldest first."""
        with self._read() as db:
            return rows.evaluations(db, name)

    # --- events ------------------------------------------------------------------------------------------------

    def add_event(self, name: str, kind: str, message: str, *, step: int, seconds_lost: float = 0.0) -> int:
        """Store something that happened to a job; returns its number."""
        with self._write() as db:
            insert = schema.job_events.insert().values(
                job=name, kind=kind, message=message, step=step, seconds_lost=seconds_lost, time_us=self._now_us()
            )
            key = db.execute(insert).inserted_primary_key
            assert key is not None  # an insert of one row has one
            return int(key[0])

    def set_seconds_lost(self, event: int, seconds_lost: float) -> None:
        """Add to an event what it has cost, once that is known."""
        table = schema.job_events
        with self._write() as db:
            db.execute(table.update().where(table.c.id == event).values(seconds_lost=seconds_lost))

    # --- receipts ----------------------------------------------------------------------------------------------

    def add_receipt(self, name: str, *, step: int, state_digest: str) -> Receipt | None:
        """Chain a receipt to those before it. A step that has one already was computed again: that one is returned, to
        be compared. None if the step has none and later ones have: it cannot be chained any more."""
        table = schema.receipts
        of_job = sa.select(table).where(table.c.job == name)
        with self._write() as db:
            known = db.execute(of_job.where(table.c.step == step)).mappings().first()
            if known is not None:
                return rows.receipt(known)
            last = db.execute(of_job.order_by(table.c.step.desc()).limit(1)).mappings().first()
            if last is not None and last["step"] > step:
                return None
            before = NO_RECEIPT if last is None else last["chain_digest"]
            receipt = Receipt.after(before, step=step, state_digest=state_digest)
            db.execute(
                table.insert().values(job=name, step=step, state_digest=state_digest, chain_digest=receipt.chain_digest)
            )
            return receipt

    def drop_receipts(self, name: str, *, after_step: int) -> None:
        """Forget the receipts of later steps: what comes in their place may be something else."""
        table = schema.receipts
        with self._write() as db:
            db.execute(table.delete().where(table.c.job == name, table.c.step > after_step))

    def receipts(self, name: str, *, after_step: int, limit: int, tenant: str | None = None) -> list[Receipt]:
        """Receipts of the steps after `after_step`, in order. Raises NotFoundError if there is no such job."""
        table = schema.receipts.c
        query = sa.select(schema.receipts).where(table.job == name, table.step > after_step)
        with self._read() as db:
            get(db, schema.jobs, name, tenant=tenant)
            found = db.execute(query.order_by(table.step).limit(limit)).mappings().all()
        return [rows.receipt(row) for row in found]

    # --- checkpoints -------------------------------------------------------------------------------------------

    def add_checkpoint(
        self, job: str, *, step: int, epoch: int, manifest_digest: str, state_digest: str, size_bytes: int
    ) -> None:
        """Remember a checkpoint whose blobs are stored, in place of one of the same step."""
        with self._write() as db:
            _delete_checkpoints(db, job, [step])
            db.execute(
                schema.checkpoints.insert().values(
                    job=job,
                    step=step,
                    epoch=epoch,
                    manifest_digest=manifest_digest,
                    state_digest=state_digest,
                    size_bytes=size_bytes,
                    create_time_us=self._now_us(),
                )
            )

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """A job's checkpoints, latest first."""
        table = schema.checkpoints
        query = sa.select(table).where(table.c.job == job).order_by(table.c.step.desc())
        with self._read() as db:
            best = _best_step(db, job)
            return [rows.checkpoint(row, best) for row in db.execute(query).mappings()]

    def list_checkpoints(
        self, job: str, asked: PageRequest, *, tenant: str | None = None
    ) -> tuple[list[Checkpoint], str]:
        """A page of a job's checkpoints, latest first, and the token of the next. Raises NotFoundError if there is no
        such job, or InvalidRequestError."""
        table = schema.checkpoints
        with self._read() as db:
            get(db, schema.jobs, job, tenant=tenant)
            query = sa.select(table).where(table.c.job == job)
            found, token = page(db, query, listings.CHECKPOINTS, asked, scope=job)
            best = _best_step(db, job)
            return [rows.checkpoint(row, best) for row in found], token

    def drop_checkpoints(self, job: str, steps: Iterable[int]) -> None:
        """Forget some checkpoints. Their blobs stay."""
        with self._write() as db:
            _delete_checkpoints(db, job, list(steps))

    def references(self) -> dict[str, list[str]]:
        """All blobs that something refers to, with what does."""
        found: dict[str, list[str]] = {}
        versions = schema.model_versions.c
        queries = (
            sa.select(versions.weights_digest, versions.model + "/versions/" + sa.cast(versions.number, sa.String)),
            sa.select(schema.models.c.graph_digest, schema.models.c.name).where(schema.models.c.graph_digest != ""),
            sa.select(schema.models.c.code_digest, schema.models.c.name).where(schema.models.c.code_digest != ""),
            sa.select(schema.datasets.c.digest, schema.datasets.c.name),
            sa.select(schema.dataset_chunks.c.digest, schema.datasets.c.name).join_from(
                schema.dataset_chunks, schema.datasets
            ),
            sa.select(schema.jobs.c.weights_digest, schema.jobs.c.name).where(schema.jobs.c.weights_digest != ""),
            sa.select(schema.checkpoints.c.manifest_digest, schema.checkpoints.c.job),
            sa.select(schema.checkpoints.c.state_digest, schema.checkpoints.c.job),
        )
        with self._read() as db:
            for query in queries:
                for digest, name in db.execute(query):
                    found.setdefault(digest, []).append(name)
        return found

    def unreferenced(self, digests: Iterable[str]) -> list[str]:
        """Those of some blobs that no model, dataset, job or checkpoint refers to."""
        columns = (
            schema.model_versions.c.weights_digest,
            schema.models.c.graph_digest,
            schema.models.c.code_digest,
            schema.datasets.c.digest,
            schema.dataset_chunks.c.digest,
            schema.jobs.c.weights_digest,
            schema.checkpoints.c.manifest_digest,
            schema.checkpoints.c.state_digest,
        )
        with self._read() as db:
            return [
                digest
                for digest in digests
                if not any(db.execute(sa.select(column).where(column == digest).limit(1)).first() for column in columns)
            ]


def _thin_out(db: Connection, job: str, after_step: int, last_step: int) -> None:
    """Keep the metrics of a few of the steps in a range."""
    if last_step <= 0:
        return
    step = schema.metrics.c.step
    between = sa.and_(schema.metrics.c.job == job, step > after_step, step <= last_step)
    db.execute(schema.metrics.delete().where(between, step % METRICS_STRIDE != 0, step != 1))


def _delete_checkpoints(db: Connection, job: str, steps: Sequence[int]) -> None:
    table = schema.checkpoints
    db.execute(table.delete().where(table.c.job == job, table.c.step.in_(steps)))


def _best_step(db: Connection, job: str) -> int | None:
    """Step of the best evaluation, by what the job watches; None if there is none."""
    config = db.execute(sa.select(schema.jobs.c.config).where(schema.jobs.c.name == job)).scalar()
    by = Watched() if config is None else watched(configs.from_values(config))
    if by.name:
        found = rows.evaluations(db, job)
        return by.best(found).step if found else None
    table = schema.evaluations
    by_loss = (table.c.loss.is_(None), table.c.loss, table.c.epoch)
    return db.execute(sa.select(table.c.step).where(table.c.job == job).order_by(*by_loss).limit(1)).scalar()


def _stored(loss: float) -> float | None:
    return None if math.isnan(loss) else loss
