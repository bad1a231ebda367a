"""Models that are code: taken where that is allowed, checked without running anything of it, and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io, nn
from chainrule.engine.models import Outline, outline_of, parsing
from chainrule.server import code
from chainrule.server.architecture import Builtin, CodeArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import (
    AlreadyExistsError,
    CodeNotAllowedError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
)
from chainrule.server.models import ModelCatalog
from chainrule.server.predictions.versions import ServedVersions
from chainrule.server.records import Model
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.state import Arrays
from tests.server.conftest import refusal

NET = b"""
import chainrule.engine.nowhere  # whoever runs this fails


def build(hidden=4):
    raise RuntimeError("it was run")
"""


class Net(nn.Module):
    """What the file is said to make."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4, momentum=None)
        self.again = nn.Linear(2, 4)
        self.again.weight = self.first.weight
        self.register_buffer("scale", cr.ones(3))


def weights_of(module: nn.Module) -> Arrays:
    return {name: value.data for name, value in module.state_dict().items()}


def declared(module: nn.Module) -> Outline:
    """As a request has it: names without shapes."""
    outline = outline_of(module)
    return replace(outline, parameters=dict.fromkeys(outline.parameters, ("", ())), buffers={})


WEIGHTS = weights_of(Net())


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> ModelCatalog:
    return ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False), allow_code=True)


@pytest.fixture
def forbidding(store: Store, blobs: BlobStore) -> ModelCatalog:
    return ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False))


def create(
    catalog: ModelCatalog,
    blobs: BlobStore,
    content: bytes = NET,
    *,
    weights: Arrays = WEIGHTS,
    more: dict[str, Any] | None = None,
    **of_code: Any,
) -> Model:
    asked = CodeArchitecture(
        **{"digest": blobs.put(content), "config": {"hidden": 4}, "declared": declared(Net()), **of_code}
    )
    arguments = {"weights_digest": blobs.put(io.save(weights)), "init_seed": 0, "tenant": "default", **(more or {})}
    return catalog.create("m", architecture=asked, **arguments)


def test_code_is_stored_with_what_it_consists_of(catalog: ModelCatalog, blobs: BlobStore) -> None:
    model = create(catalog, blobs, factory="build", file_name="my net.py")
    assert isinstance(model.architecture, CodeArchitecture)
    assert model.num_parameters == 8 + 4 + 4 + 4 + 4
    assert model.architecture.declared.specs == {n: (w.dtype.name, w.shape) for n, w in WEIGHTS.items()}
    assert list(model.architecture.declared.parameters) == [name for name, _ in Net().named_parameters()]
    found = catalog.get("models/m", tenant="default")
    assert found == model
    assert isinstance(found.architecture, CodeArchitecture)
    assert found.architecture.file_name == "my net.py"
    assert list(found.architecture.declared.parameters) == list(model.architecture.declared.parameters)
    assert found.architecture.content == b""
    read = catalog.architecture(found)
    assert isinstance(read, CodeArchitecture)
    assert read.content == NET


def test_jobs_begin_and_end_with_its_weights_without_running_it(catalog: ModelCatalog, blobs: BlobStore) -> None:
    model = create(catalog, blobs)
    parameters, others = catalog.state(model)
    assert list(parameters) == [name for name, _ in Net().named_parameters()]
    assert others.keys() == {"scale", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    trained = {name: value + 1 for name, value in {**parameters, **others}.items()}
    weights = io.load(catalog.trained(model, trained))
    assert weights.keys() == WEIGHTS.keys()
    np.testing.assert_array_equal(weights["again.weight"], WEIGHTS["first.weight"] + 1)
    with pytest.raises(cr.StateDictError, match="not the values of models/m"):
        catalog.trained(model, {"first.weight": WEIGHTS["first.weight"]})
    with pytest.raises(cr.CodeError, match="which only workers run"):
        catalog.load(model)


def test_the_same_code_twice_is_one_model_and_another_is_refused(catalog: ModelCatalog, blobs: BlobStore) -> None:
    assert create(catalog, blobs) == create(catalog, blobs, file_name="other.py")
    others: list[dict[str, Any]] = [{"config": {}}, {"content": NET + b"\n"}, {"more": {"init_seed": 1}}]
    for other in others:
        with pytest.raises(AlreadyExistsError, match="choose another name"):
            create(catalog, blobs, **other)
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        catalog.create("m", architecture=Builtin("mlp"), weights_digest="", init_seed=0, tenant="default")


def test_its_blob_stays_as_long_as_the_model(catalog: ModelCatalog, blobs: BlobStore, store: Store) -> None:
    model = create(catalog, blobs)
    assert isinstance(model.architecture, CodeArchitecture)
    digest = model.architecture.digest
    assert store.references()[digest] == ["models/m"]
    assert store.unreferenced([digest]) == []
    assert digest in store.readable_blobs("default", [digest])
    catalog.delete("models/m", tenant="default")
    assert store.unreferenced([digest]) == [digest]


def test_the_code_of_another_tenant_is_not_found(store: Store, blobs: BlobStore) -> None:
    catalog = ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=True), allow_code=True)
    with pytest.raises(NotFoundError):
        create(catalog, blobs, more={"tenant": "others"})


# --- where it is not allowed -----------------------------------------------------------------------------------


def test_without_being_allowed_it_is_refused_and_nothing_of_it_is_read(
    forbidding: ModelCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CodeNotAllowedError, match=r"was started without --allow-code. Its operator can allow it"):
        create(forbidding, blobs)


def test_what_was_made_while_it_was_allowed_is_kept_and_not_run(
    catalog: ModelCatalog, forbidding: ModelCatalog, blobs: BlobStore
) -> None:
    model = create(catalog, blobs)
    assert forbidding.get("models/m", tenant="default") == model
    assert forbidding.version("models/m/versions/1", tenant="default").weights_digest == model.weights_digest
    for use in (forbidding.check_allowed, forbidding.architecture):
        with pytest.raises(CodeNotAllowedError, match=r'"models/m" is Python code'):
            use(model)


def test_there_are_no_predictions_with_code(catalog: ModelCatalog, blobs: BlobStore, store: Store) -> None:
    create(catalog, blobs)
    with pytest.raises(IllegalStateError, match="so there are no predictions with it here; load its weights"):
        ServedVersions(store, blobs).find("models/m", tenant="default")


# --- what nobody should take -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"def build(:", r"\(model.py\) is no Python 3.\d+, line 1: "),
        (b"def other(): pass", r'has no "build" at its top level, .* it defines other'),
        (b"\xff\xfe", "is not UTF-8: byte 0, in line 1, is 0xff"),
        (b"def build(): pass\n\0", "has the character NUL in line 2"),
        (b"", 'has no "build" at its top level, .* it defines no functions'),
        (b"(" * 100_000, "line 1: too many nested parentheses"),
        (b"-" * 900_000 + b"1", "is nested too deeply, or consists of too much, to be parsed"),
        (b"a\n" * 520_000, "is nested too deeply, or consists of too much, to be parsed"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_cannot_be_the_file_is_refused_with_its_line(
    catalog: ModelCatalog, blobs: BlobStore, content: bytes, said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said) as caught:
        create(catalog, blobs, content)
    assert refusal(caught).field == "model.code.digest"


def test_a_file_beyond_the_limit_is_not_read(
    catalog: ModelCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"#" * (code.MAX_SOURCE_BYTES + 1)
    blobs.put(content)
    monkeypatch.setattr(blobs, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InvalidRequestError, match="has 1,048,577 bytes; a source file has at most 1,048,576"):
        create(catalog, blobs, content)


def test_a_file_that_takes_long_to_parse_is_given_up(
    catalog: ModelCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "PARSE_TIMEOUT_S", 0.2)
    with pytest.raises(InvalidRequestError, match="is not parsed within 0 s"):
        create(catalog, blobs, b'f"' + b"{a}" * 300_000 + b'"')


def test_a_file_at_which_the_parser_ends_is_refused(
    catalog: ModelCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ending = tmp_path / "ending.py"
    ending.write_text("import os; os.abort()")
    monkeypatch.setattr(parsing, "__file__", str(ending))
    with pytest.raises(InvalidRequestError, match="cannot be parsed: the parser ends on it"):
        create(catalog, blobs)


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"factory": "a.b"}, "factory", "is 'a.b'; use the name of a function of the file"),
        ({"factory": "class"}, "factory", "use the name of a function"),
        ({"factory": "x" * 101}, "factory", "use the name of a function"),
        ({"file_name": "../x.py"}, "file_name", "use at most 100 letters, digits"),
        ({"file_name": "x.sh"}, "file_name", "use at most 100 letters, digits"),
        ({"file_name": "x\n.py"}, "file_name", "use at most 100 letters, digits"),
        ({"config": {"a b": 1}}, "config", "has 'a b', which is no name of an argument"),
        ({"config": {**{f"a{number}": 1 for number in range(200)}, "b c": 1}}, "config", "has 'b c', which is no name"),
        ({"config": {"a": "x" * 70_000}}, "config", "has 70,009 bytes as JSON; use at most 65,536"),
    ],
)
def test_how_the_factory_is_called_is_checked(
    catalog: ModelCatalog, blobs: BlobStore, arguments: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said) as caught:
        create(catalog, blobs, **arguments)
    assert refusal(caught).field == f"model.code.{field}"


NAMES = declared(Net())


@pytest.mark.parametrize(
    ("outline", "field", "said"),
    [
        (Outline({}), "parameters", "is empty; name the parameters"),
        (Outline({f"w{number}": ("", ()) for number in range(20_001)}), "parameters", "has 20,001 names; a model of"),
        (
            replace(NAMES, tied={f"w{number}": "again.weight" for number in range(20_001)}),
            "tied",
            "has 20,001 names; a",
        ),
        (Outline({"w": ("", ())}), "parameters[0]", "is 'w', which the weights do not have; they have "),
        (
            replace(NAMES, parameters={**NAMES.parameters, "again.weight": ("", ())}),
            "parameters[5]",
            "is 'again.weight', which is in tied, too",
        ),
        (
            replace(NAMES, parameters={**NAMES.parameters, "norm.num_batches_tracked": ("", ())}, batch_norms={}),
            "parameters[5]",
            "which is int64 in the weights; use float32",
        ),
        (replace(NAMES, tied={**NAMES.tied, "x": "first.bias"}), "tied", "has 'x', which the weights do not have"),
        (replace(NAMES, tied={"again.weight": "x"}), "tied", "for 'x', which is no parameter or buffer"),
        (replace(NAMES, tied={"again.weight": "again.bias"}), "tied", "but the weights differ in them"),
        (
            replace(NAMES, batch_norms={"first": 0.1}),
            "batch_norms[0].path",
            "do not have its running_mean, running_var",
        ),
        (replace(NAMES, batch_norms={"": 0.1}), "batch_norms[0].path", "do not have its running_mean, running_var"),
        (replace(NAMES, batch_norms={"norm": 1.5}), "batch_norms[0].momentum", "is 1.5; use 0 to 1"),
        (replace(NAMES, batch_norms={"norm": float("nan")}), "batch_norms[0].momentum", "is nan; use 0 to 1"),
    ],
)
def test_what_is_declared_must_be_in_the_weights(
    catalog: ModelCatalog, blobs: BlobStore, outline: Outline, field: str, said: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        create(catalog, blobs, declared=outline)
    assert refusal(caught).field == f"model.code.{field}"
    assert said in refusal(caught).description


def test_code_needs_its_weights(catalog: ModelCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        (
            {"weights_digest": ""},
            "model.weights_digest",
            "is not set, but code, which the server does not run, has none",
        ),
        ({"allow_missing": ["x.*"]}, "allow_missing", "upload all of them"),
        ({"weights_digest": blobs.put(b"none")}, "model.weights_digest", "does not hold weights"),
    ]
    for more, field, said in cases:
        with pytest.raises(InvalidRequestError, match=said) as caught:
            create(catalog, blobs, more=more)
        assert refusal(caught).field == field
    monkeypatch.setattr(code, "MAX_NAMES", 3)
    with pytest.raises(InvalidRequestError, match="has 10 tensors; a model of code has at most 3"):
        create(catalog, blobs)
    monkeypatch.setattr(code, "MAX_NAMES", 100)
    monkeypatch.setattr(code, "MAX_PARAMETERS", 10)
    with pytest.raises(InvalidRequestError, match="makes a model of 24 parameters; at most 10 are taken"):
        create(catalog, blobs)
