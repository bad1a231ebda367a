"""What can be listed: as the API says it, in both databases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from chainrule.server.store import PageRequest, Store, listings
from chainrule.server.store.filtering import Choice, Labels, Number, Text, Time
from chainrule.server.store.paging import Listing, page
from tests.server.store.catalogued import add_job, add_version, dataset, model

PROTOS = Path(__file__).parents[3] / "protos" / "chainrule" / "v1"
OF_API = {"model": listings.MODELS, "dataset": listings.DATASETS, "job": listings.JOBS}
VALUES = {
    Text: "x",
    Number: "1",
    Time: "2026-01-01T00:00:00Z",
    Choice: "QUEUED",
    Labels: "team",
}


def comments(kind: str) -> str:
    """Those of a request for a page, on one line."""
    text = (PROTOS / f"{kind}.proto").read_text()
    [body] = re.findall(rf"message List{kind.capitalize()}sRequest {{(.*?)\n}}", text, re.DOTALL)
    return re.sub(r"\s*//\s*", " ", body)


@pytest.mark.parametrize("kind", OF_API)
def test_the_api_names_what_can_be_filtered_and_ordered_by(kind: str) -> None:
    [fields] = re.findall(r"Fields: (.*?)\. Empty: all", comments(kind))
    assert sorted(fields.replace("labels.KEY", "labels").split(", ")) == sorted(OF_API[kind].fields)
    [orders] = re.findall(r"a field \((.*?)\), and", comments(kind))
    assert orders.split(", ") == list(OF_API[kind].orders)


@pytest.mark.parametrize("kind", OF_API)
def test_every_field_and_order_is_one_of_the_database(url: str, kind: str) -> None:
    listing = OF_API[kind]
    store = Store(url)
    store.create_model(model(labels={"team": "x"}), tenant="default")
    store.create_dataset(dataset(labels={"team": "x"}), tenant="default")
    for name in ("jobs/a", "jobs/b"):
        add_job(store, name)
    query = sa.select(listing.key.table)
    with store._read() as db:
        for name, field in listing.fields.items():
            value = VALUES[type(field)]
            with_it, _ = page(db, query, listing, PageRequest(filter=f"{name}:{value}"))
            without, _ = page(db, query, listing, PageRequest(filter=f"NOT {name}:{value}"))
            everything, _ = page(db, query, listing, PageRequest())
            assert len(with_it) + len(without) == len(everything) > 0, name
        for order in listing.orders:
            for asked in (order, f"{order} desc"):
                first, token = page(db, query, listing, PageRequest(1, order_by=asked))
                rest, _ = page(db, query, listing, PageRequest(1, token, order_by=asked)) if token else ([], "")
                assert len({row["id"] for row in (*first, *rest)}) == (2 if kind == "job" else 1), asked
    store.close()


@pytest.mark.parametrize("listing", [listings.MODEL_VERSIONS, listings.CHECKPOINTS, listings.TOKENS, listings.AUDIT])
def test_what_has_one_order_only_is_listed_newest_first(url: str, listing: Listing) -> None:
    store = Store(url)
    store.create_model(model(), tenant="default")
    for number in (2, 3):
        add_version(store, number)
    with store._read() as db:
        rows, token = page(db, sa.select(listing.key.table), listing, PageRequest(2))
        assert [row[listing.key.name] for row in rows] == ([3, 2] if listing is listings.MODEL_VERSIONS else [])
        rows, _ = page(db, sa.select(listing.key.table), listing, PageRequest(2, token))
        assert [row[listing.key.name] for row in rows] == ([1] if token else [])
    store.close()
