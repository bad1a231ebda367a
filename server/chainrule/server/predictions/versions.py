"""Which network a name stands for: looked up in the store, and remembered for as long as nothing was written to it."""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.server import names
from chainrule.server.architecture import CodeArchitecture, GraphArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import IllegalStateError
from chainrule.server.predictions.network import NetworkSpec
from chainrule.server.store import Store

MAX_KNOWN = 1000
"""Most names that are remembered."""


@dataclass(frozen=True)
class ServedVersion:
    """A version of a model, to be predicted with."""

    name: str
    """Its resource name."""
    network: NetworkSpec
    class_labels: tuple[str, ...] = ()
    """What its classes are called; empty: nobody has said."""


class ServedVersions:
    """The versions that predictions may be asked of."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._known: dict[tuple[str, str], ServedVersion] = {}
        self._revision = -1

    def known(self, name: str, *, tenant: str) -> ServedVersion | None:
        """What a name stands for, if that was found since the store was last written to. Does not block."""
        return self._known.get((tenant, name)) if self._revision == self._store.revision else None

    def find(self, name: str, *, tenant: str) -> ServedVersion:
        """What a name stands for: a version, or the newest one of models/{id}. Blocks. Raises InvalidRequestError
        naming the field `model`, NotFoundError, or IllegalStateError if it is code."""
        model_name, number = names.served_version(name, field="model")
        revision = self._store.revision  # before it is read: what is written meanwhile counts as not seen
        model, version = self._store.get_model_version(model_name, number, tenant=tenant)
        architecture = model.architecture
        if isinstance(architecture, CodeArchitecture):
            raise IllegalStateError(
                f'"{model.name}" is Python code, which the workers of jobs run and nobody else, so there are no '
                "predictions with it here; load its weights into the network on a machine of yours (docs/models.md)"
            )
        found = ServedVersion(
            name=names.version(version.model, version.number),
            network=NetworkSpec(
                model=model.name,
                architecture=architecture,
                weights_digest=version.weights_digest,
                weights_file=str(self._blobs.path(version.weights_digest)),
                graph_file=(
                    str(self._blobs.path(architecture.digest)) if isinstance(architecture, GraphArchitecture) else ""
                ),
                preparation=version.preparation,
                raw_bytes=version.raw_bytes,
            ),
            class_labels=version.class_labels or model.class_labels,
        )
        self._keep(tenant, name, found, revision)
        return found

    def check_weights(self, network: NetworkSpec) -> None:
        """Read the weights of a network that could not be loaded. Blocks. Raises NotFoundError or DamagedBlobError if
        they are not there, or not right; then they count as missing."""
        if isinstance(network.architecture, GraphArchitecture):
            self._blobs.check(network.architecture.digest)
        self._blobs.check(network.weights_digest)

    def _keep(self, tenant: str, name: str, found: ServedVersion, revision: int) -> None:
        if revision != self._revision or len(self._known) >= MAX_KNOWN:
            self._known = {}
        self._known[tenant, name] = found
        self._revision = revision
