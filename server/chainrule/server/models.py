"""Models and their versions: what can be created, changed and removed, and with which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from types import MappingProxyType

import chainrule.engine as cr
from chainrule.engine import io, nn
from chainrule.server import code, names
from chainrule.server.annotations import AnnotationChange, check_annotation_change, check_annotations
from chainrule.server.architecture import (
    MAX_GRAPH_BYTES,
    Architecture,
    Buildable,
    CodeArchitecture,
    GraphArchitecture,
)
from chainrule.server.blobs import Blob, BlobStore
from chainrule.server.errors import CodeNotAllowedError, InvalidRequestError, NotFoundError, echo
from chainrule.server.networks import Described, build, check_class_labels, described, in_service
from chainrule.server.records import Model, ModelVersion
from chainrule.server.store import NO_REQUEST, PageRequest, Request, Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.state import Arrays

_CODE = "model.code.digest"
_GRAPH = "model.graph.digest"
_WEIGHTS = "model.weights_digest"


class ModelCatalog:
    """Creates, finds, changes and removes models of tenants. Its methods block.

    What is removed leaves its weights' blobs behind, as what nothing refers to: `BlobStore.collect` removes them once
    nobody can be about to refer to them.

    Args:
        tenant_blobs: which blobs whose models may be made of.
        allow_code: whether models may be Python code, to be run by the workers of jobs.
    """

    def __init__(self, store: Store, blobs: BlobStore, tenant_blobs: TenantBlobs, *, allow_code: bool = False) -> None:
        self._allow_code = allow_code
        self._store = store
        self._blobs = blobs
        self._tenant_blobs = tenant_blobs

    def create(
        self,
        model_id: str,
        *,
        architecture: Architecture,
        weights_digest: str,
        init_seed: int,
        tenant: str,
        allow_missing: Sequence[str] = (),
        labels: Mapping[str, str] = MappingProxyType({}),
        description: str = "",
        class_labels: Sequence[str] = (),
        request: Request = NO_REQUEST,
        validate_only: bool = False,
    ) -> Model:
        """Check and store a model; without weights they are initialised from the seed, and so is what the weights may
        lack or hold in another shape: what matches one of the patterns `allow_missing`. A graph, and code, need all
        their weights. A request that is repeated is answered with what it has made before. With `validate_only` nothing
        is stored.

        Raises InvalidRequestError, NotFoundError (no such blob, or what the request has made was removed),
        AlreadyExistsError, CodeNotAllowedError, or StorageFullError if there is no room for weights that are
        initialised.
        """
        name = names.new_name("models", model_id, field="model_id")
        check_annotations(labels=labels, description=description, field="model")
        known = self._store.model_of_request(request, tenant=tenant)
        if known is not None:
            return known
        with ExitStack() as held:
            network, content = self._network(architecture, weights_digest, init_seed, allow_missing, tenant, held)
            check_class_labels(class_labels, network)
            if content is not None:
                weights_digest = io.digest(content)
                held.enter_context(self._blobs.hold(weights_digest))
            model = Model(
                name=name,
                weights_digest=weights_digest,
                init_seed=init_seed,
                create_time=datetime.now(UTC),
                labels=dict(labels),
                description=description,
                class_labels=tuple(class_labels),
                **vars(network),
            )
            checked = self._store.create_model(model, tenant=tenant, request=request, validate_only=True)
            if validate_only:
                return checked
            if content is not None:  # what is refused leaves no weights behind
                self._put(content, weights_digest, tenant)
            return self._store.create_model(model, tenant=tenant, request=request)

    def get(self, name: str, *, tenant: str, field: str = "name") -> Model:
        """Raises NotFoundError, or InvalidRequestError naming the request's field."""
        return self._store.get_model(names.existing("models", name, field=field), tenant=tenant)

    def page(self, asked: PageRequest, *, tenant: str) -> tuple[list[Model], str]:
        """A page, and the token of the next. Raises InvalidRequestError."""
        return self._store.list_models(asked, tenant=tenant)

    def update(self, name: str, change: AnnotationChange, *, tenant: str, etag: str = "") -> Model:
        """Change what is noted on a model. Raises InvalidRequestError, NotFoundError or StaleEtagError."""
        name = names.existing("models", name, field="model.name")
        check_annotation_change(change, field="model")
        return self._store.update_model(name, change, tenant=tenant, etag=etag)

    def delete(self, name: str, *, tenant: str, etag: str = "", allow_missing: bool = False) -> None:
        """Remove a model with all its versions. Raises InvalidRequestError, NotFoundError unless it may be missing,
        StaleEtagError, or IllegalStateError if a job uses it that has not ended."""
        try:
            self._store.delete_model(names.existing("models", name), tenant=tenant, etag=etag)
        except NotFoundError:
            if not allow_missing:
                raise

    # --- versions ----------------------------------------------------------------------------------------------

    def version(self, name: str, *, tenant: str) -> ModelVersion:
        """A version by its name. Raises InvalidRequestError or NotFoundError."""
        model, number = names.existing_version(name)
        return self._store.get_version(model, number, tenant=tenant)

    def versions(self, model: str, asked: PageRequest, *, tenant: str) -> tuple[list[ModelVersion], str]:
        """A page of a model's versions, newest first, and the token of the next. Raises InvalidRequestError or
        NotFoundError."""
        return self._store.list_versions(names.existing("models", model, field="parent"), asked, tenant=tenant)

    def delete_version(self, name: str, *, tenant: str, allow_missing: bool = False) -> None:
        """Remove a version. Raises InvalidRequestError, NotFoundError unless it may be missing, or IllegalStateError if
        it is the first, or a job began with it that has not ended."""
        try:
            model, number = names.existing_version(name)
            if number is None:
                raise InvalidRequestError.of(
                    "name", f"{echo(name)} is another version once this one is removed; give its number"
                )
            self._store.delete_version(model, number, tenant=tenant)
        except NotFoundError:
            if not allow_missing:
                raise

    # --- networks ----------------------------------------------------------------------------------------------

    def check_allowed(self, model: Model) -> None:
        """Raises CodeNotAllowedError if a model is code and this service is not to have it run."""
        if isinstance(model.architecture, CodeArchitecture) and not self._allow_code:
            raise CodeNotAllowedError.of(f'"{model.name}"')

    def architecture(self, model: Model) -> Architecture:
        """The architecture of a model with all that is needed to build it, where that is allowed. Raises
        CodeNotAllowedError."""
        self.check_allowed(model)
        if isinstance(model.architecture, GraphArchitecture):
            return self._read_graph(model.architecture)
        if isinstance(model.architecture, CodeArchitecture):
            return self._read_code(model.architecture)
        return model.architecture

    def load(self, model: Model) -> nn.Module:
        """The network with its weights; of code there is none in this process: ask `state`."""
        module = in_service(self._buildable(model))
        self._load_weights(module, model.weights_digest)
        return module

    def state(self, model: Model) -> tuple[Arrays, Arrays]:
        """The parameters of a model, in the order of the network, and its buffers. One with several names is there
        once."""
        if isinstance(model.architecture, CodeArchitecture):
            weights = self._read_weights(model.weights_digest)
            code.check_weights(model.architecture.declared, weights)
            return code.state_of_code(model.architecture.declared, weights)
        module = self.load(model)
        parameters = {name: value.data for name, value in module.named_parameters()}
        others = state_of(module)
        for name in (*parameters, *tied_names(module)):
            del others[name]
        return parameters, others

    def trained(self, model: Model, values: Arrays) -> bytes:
        """The weights file of a network with these values of its parameters and buffers: its whole state_dict, in which
        tied parameters have all their names. Raises StateDictError if the values are not those of the network."""
        if isinstance(model.architecture, CodeArchitecture):
            declared = model.architecture.declared
            if values.keys() != {*declared.parameters, *declared.buffers}:
                raise cr.StateDictError(f"these are not the values of {model.name}: {echo(sorted(values))}")
            return io.save(code.all_names(declared, values))
        module = in_service(self._buildable(model))
        _load(module, values, may_lack=tied_names(module).__contains__)
        return io.save(state_of(module))

    def _buildable(self, model: Model) -> Buildable:
        """What the service may build in its own process."""
        architecture = self.architecture(model)
        if isinstance(architecture, CodeArchitecture):
            raise cr.CodeError(f'"{model.name}" is code, which only workers run')
        return architecture

    def _network(
        self,
        architecture: Architecture,
        weights_digest: str,
        init_seed: int,
        allow_missing: Sequence[str],
        tenant: str,
        held: ExitStack,
    ) -> tuple[Described, bytes | None]:
        """What a new model consists of, and the file of its weights where these are not those that it was given. Blobs
        that it refers to are kept in `held`."""
        if isinstance(architecture, CodeArchitecture):
            if not self._allow_code:
                raise CodeNotAllowedError.of("such a model")
            _check_given(weights_digest, allow_missing, "code, which the server does not run, has none of its own")
            return self._declared(replace(architecture, seed=init_seed), weights_digest, tenant, held), None
        if isinstance(architecture, GraphArchitecture):
            _check_given(weights_digest, allow_missing, "a graph does not say how its weights are initialised")
            architecture = held.enter_context(self._held_graph(architecture, tenant))
        module = build(architecture, init_seed)
        network = described(module, architecture)
        _check_patterns(module, allow_missing, weights_digest)
        if weights_digest:
            held.enter_context(self._tenant_blobs.hold(weights_digest, tenant=tenant, field=_WEIGHTS))
            self._load_weights(module, weights_digest, allow_missing)
        return network, io.save(state_of(module)) if allow_missing or not weights_digest else None

    def _declared(self, architecture: CodeArchitecture, weights_digest: str, tenant: str, held: ExitStack) -> Described:
        """What a network that is code consists of, as was declared of it, once the file has been parsed."""
        code.check_call(architecture)
        held.enter_context(self._tenant_blobs.hold(architecture.digest, tenant=tenant, field=_CODE))
        architecture = self._read_code(architecture)
        code.check_source(architecture)
        held.enter_context(self._tenant_blobs.hold(weights_digest, tenant=tenant, field=_WEIGHTS))
        return code.described_code(architecture, self._read_weights(weights_digest))

    def _read_code(self, architecture: CodeArchitecture) -> CodeArchitecture:
        """Code with the content of its file. Raises InvalidRequestError if that is too large, or NotFoundError."""
        size = self._blobs.size(architecture.digest)
        if size > code.MAX_SOURCE_BYTES:
            raise InvalidRequestError.of(
                _CODE,
                f'blob "{architecture.digest}" has {size:,} bytes; a source file has at most '
                f"{code.MAX_SOURCE_BYTES:,}: what is large is weights, and goes with them",
            )
        return replace(architecture, content=self._blobs.read(architecture.digest))

    def _read_weights(self, digest: str) -> Arrays:
        try:
            return io.load(self._blobs.read(digest))
        except cr.FormatError as error:
            raise InvalidRequestError.of(_WEIGHTS, f'blob "{digest}" does not hold weights: {error}') from error

    @contextmanager
    def _held_graph(self, architecture: GraphArchitecture, tenant: str) -> Iterator[GraphArchitecture]:
        """A graph that a tenant names by its digest, with its content; the blob is kept meanwhile."""
        with self._tenant_blobs.hold(architecture.digest, tenant=tenant, field=_GRAPH):
            yield self._read_graph(architecture)

    def _read_graph(self, architecture: GraphArchitecture) -> GraphArchitecture:
        """A graph with its content. Raises InvalidRequestError if it is too large, or NotFoundError."""
        size = self._blobs.size(architecture.digest)
        if size > MAX_GRAPH_BYTES:
            raise InvalidRequestError.of(
                _GRAPH,
                f'blob "{architecture.digest}" has {size:,} bytes; a graph has at most {MAX_GRAPH_BYTES:,}: send its '
                "weights apart, as safetensors",
            )
        return replace(architecture, content=self._blobs.read(architecture.digest))

    def _put(self, content: bytes, digest: str, tenant: str) -> None:
        """Store initialised weights, if there is room for them. Raises StorageFullError."""
        if self._tenant_blobs.missing([digest], tenant=tenant):
            self._tenant_blobs.check_room(Blob(digest, len(content)), tenant=tenant)
        self._blobs.put(content, digest=digest)

    def _load_weights(self, module: nn.Module, digest: str, allow_missing: Sequence[str] = ()) -> None:
        try:
            tensors = io.load(self._blobs.read(digest))
            _load(module, tensors, may_lack=lambda name: any(fnmatchcase(name, pattern) for pattern in allow_missing))
        except (cr.FormatError, cr.StateDictError) as error:
            raise InvalidRequestError.of(
                _WEIGHTS, f'blob "{digest}" does not hold weights of this architecture: {error}'
            ) from error


def state_of(module: nn.Module) -> Arrays:
    """The state_dict of a network as arrays."""
    return {name: value.data for name, value in module.state_dict().items()}


def tied_names(module: nn.Module) -> set[str]:
    """Names of parameters that have another name before: `named_parameters` leaves them out, a state_dict does not."""
    return {name for name, _ in module.named_parameters(remove_duplicate=False)} - dict(
        module.named_parameters()
    ).keys()


def _load(module: nn.Module, tensors: Arrays, *, may_lack: Callable[[str], bool]) -> None:
    """Load a state_dict that may lack some names or hold them in another shape; those stay as they are. Raises
    StateDictError."""
    shapes = {name: value.shape for name, value in state_of(module).items()}
    replaced = {
        name for name, value in tensors.items() if may_lack(name) and shapes.get(name, value.shape) != value.shape
    }
    given = {name: value for name, value in tensors.items() if name not in replaced}
    # A tied parameter that the file has under one of its names only is loaded, so it is not put back under the others.
    lacking = {name for name in shapes if name not in given and may_lack(name)}
    if lacking:
        keys = module.load_state_dict(given, strict=False)
        missing = [name for name in keys.missing_keys if name not in lacking]
        if missing or keys.unexpected_keys:
            raise cr.StateDictError(f"it lacks {echo(missing)}, and has {echo(keys.unexpected_keys)} besides")
    else:
        module.load_state_dict(given)


def _check_given(weights_digest: str, allow_missing: Sequence[str], why: str) -> None:
    """What neither a graph nor code can have: weights that the server initialises."""
    if not weights_digest:
        raise InvalidRequestError.of(
            _WEIGHTS, f"is not set, but {why}; upload them, also if they are only to begin with"
        )
    if allow_missing:
        raise InvalidRequestError.of(
            "allow_missing",
            f"is {echo(list(allow_missing))}, but {why}; upload all of them",
        )


def _check_patterns(module: nn.Module, patterns: Sequence[str], weights_digest: str) -> None:
    if patterns and not weights_digest:
        raise InvalidRequestError.of(
            "allow_missing",
            "is set, but model.weights_digest is not: without a weights file all weights are initialised; leave it out",
        )
    names = list(module.state_dict())
    for index, pattern in enumerate(patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidRequestError.of(
                f"allow_missing[{index}]", f"{echo(pattern)} matches none of the model's names: {echo(names)}"
            )
