"""The checkpoints of jobs: how they get into the store, which are kept, and which can still be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chainrule.engine import io
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import DamagedBlobError, NotFoundError
from chainrule.server.jobs import policies
from chainrule.server.records import Checkpoint
from chainrule.server.store import Store
from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import CheckpointError, Manifest
from chainrule.server.training.events import CheckpointTaken
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import TrainingState
from chainrule.server.training.watching import watched


class Checkpoints:
    """The checkpoints of all jobs of a service. Its methods block.

    Two jobs that compute the same have the same blobs. Therefore a blob is held while it is being stored, before a row
    of the store refers to it: the job that removes its own checkpoint of the same content leaves it alone.
    """

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    def add(self, job: str, taken: CheckpointTaken) -> None:
        """Store a checkpoint, in place of one of the same step: first its state, then its manifest, then the row that
        makes it count."""
        content = taken.content.memory
        state_digest = io.digest(content)
        manifest = Manifest(
            job=job,
            epoch=taken.epoch,
            step=taken.step,
            state_digest=state_digest,
            state_bytes=len(content),
        ).to_json()
        before = [known for known in self._store.checkpoints(job) if known.step == taken.step]
        with self._blobs.hold(state_digest, io.digest(manifest)):
            self._blobs.put(content, digest=state_digest)
            self._store.add_checkpoint(
                job,
                step=taken.step,
                epoch=taken.epoch,
                manifest_digest=self._blobs.put(manifest),
                state_digest=state_digest,
                size_bytes=len(content),
            )
        self._remove_blobs(before)

    def retire(self, job: str, plan: Plan) -> None:
        """Remove the checkpoints that the job's configuration does not have kept."""
        stored = self._store.checkpoints(job)
        steps = policies.superfluous(
            [known.step for known in stored],
            self._store.evaluations(job),
            keep=plan.config.keep_checkpoints,
            best=watched(plan.config) if plan.config.validation.restore_best else None,
            ends_epoch=plan.ends_epoch,
        )
        self.drop(job, [known for known in stored if known.step in steps])

    def drop(self, job: str, dropped: Sequence[Checkpoint]) -> None:
        """Remove checkpoints: first the rows, then the blobs that nothing else refers to."""
        if dropped:
            self._store.drop_checkpoints(job, [known.step for known in dropped])
            self._remove_blobs(dropped)

    def read(self, known: Checkpoint) -> TrainingState:
        """The state of a checkpoint. Raises CheckpointError if it is not whole any more, or StoreUnavailableError or
        OSError if that cannot be told."""
        try:
            manifest = Manifest.from_json(self._blobs.read(known.manifest_digest))
            return checkpoint.unpack(self._blobs.read(manifest.state_digest), manifest)
        except (DamagedBlobError, NotFoundError) as error:
            raise CheckpointError(f"the checkpoint of step {known.step} cannot be read: {error}") from error

    def remove_blobs(self, digests: Iterable[str]) -> None:
        """Remove blobs of checkpoints that are there no more, but for those that something else refers to."""
        self._blobs.discard(digests, self._store.unreferenced)

    def _remove_blobs(self, dropped: Sequence[Checkpoint]) -> None:
        self.remove_blobs({digest for known in dropped for digest in (known.manifest_digest, known.state_digest)})
