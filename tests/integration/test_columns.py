"""Datasets of several columns through the whole service: weights of examples, several targets, several inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from chainrule.client import Client, InvalidArgument, packing
from tests.integration.conftest import Images, network

TOKENS, LENGTH, KINDS = 30, 8, 3


def test_examples_count_as_much_as_a_column_says(
    client: Client, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inputs, targets), weights = images, np.arange(len(images[0])) % 3
    model = client.models.create("columns-net", network())
    one = client.datasets.create("columns-one", inputs=inputs, targets=targets, columns={"weights": weights})
    monkeypatch.setattr(packing, "SINGLE_BYTES", 4096)
    many = client.datasets.create("columns-many", inputs=inputs, targets=targets, columns={"weights": weights})
    assert (one.num_chunks, many.num_chunks > 0, one.columns) == (0, True, many.columns)
    assert client.datasets.preview(many, 4)["weights"].tolist() == [0, 1, 2, 0]
    loss = {"name": "cross_entropy", "example_weight": "weights"}
    common: dict[str, Any] = {
        "model": model,
        "epochs": 1,
        "batch_size": 50,
        "shards": 4,
        "validation": {"dataset": one},
    }
    jobs = [
        client.jobs.create(dataset=data, workers=workers, loss=loss, **common)
        for data, workers in ((one, 1), (many, 2))
    ]
    assert len({job.wait(timeout_s=120).weights_digest for job in jobs}) == 1
    with pytest.raises(
        InvalidArgument, match=r"loss\[0\].example_weight.*is 'w', but .*\"weights\"; name one of these"
    ):
        client.jobs.create(dataset=one, loss={"example_weight": "w"}, **common)


def text_columns(count: int, *, seed: int) -> dict[str, np.ndarray]:
    """Rows of tokens of which the kind is that of the most frequent third, padded with token 0."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, KINDS, size=count)
    own = 1 + kinds[:, None] * 9 + rng.integers(0, 9, size=(count, LENGTH))
    ids = np.where(rng.random((count, LENGTH)) < 0.7, own, rng.integers(1, TOKENS, size=(count, LENGTH)))
    mask = (np.arange(LENGTH) < rng.integers(3, LENGTH + 1, size=count)[:, None]).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask, "label": kinds}


@pytest.mark.torch
def test_an_encoder_with_a_mask_is_trained_and_its_weights_come_back(client: Client, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Encoder(nn.Module):  # type: ignore[misc, name-defined]
        """Embeddings, a layer of attention that leaves padding out, and the mean of what is not padding."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(TOKENS, 16), nn.Embedding(LENGTH, 16)
            layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.head = nn.Linear(16, KINDS)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
            x = self.layers(x, src_key_padding_mask=attention_mask == 0)
            kept = attention_mask.unsqueeze(-1).float()
            return self.head((x * kept).sum(1) / kept.sum(1))

    torch.manual_seed(0)
    module, columns = Encoder(), text_columns(150, seed=1)
    ids, mask = columns["input_ids"], columns["attention_mask"]
    model = client.models.create("columns-encoder", module, example=(ids[:4], mask[:4]))
    assert [(spec.name, spec.dtype) for spec in model.inputs] == [("input_ids", "int64"), ("attention_mask", "int64")]
    pl.DataFrame(columns).write_parquet(tmp_path / "texts.parquet")
    named = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    data = client.datasets.create("columns-texts", tmp_path / "texts.parquet", target="label", columns=named)
    assert [column.name for column in data.columns] == ["targets", "attention_mask", "input_ids"]
    jobs = [
        client.jobs.create(
            model=model, dataset=data, epochs=2, batch_size=20, shards=2, workers=workers,
            optimizer={"name": "adam", "lr": 0.02}, validation={"fraction": 0.2},
        )
        for workers in (1, 2)
    ]  # fmt: skip
    statuses = [job.wait(timeout_s=120) for job in jobs]
    assert statuses[0].weights_digest == statuses[1].weights_digest
    module.load_state_dict(jobs[0].state_dict("torch"))
    module.eval()
    with torch.no_grad():
        scores = module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    last = statuses[0].evaluations[-1]
    assert last.accuracy is not None
    assert last.accuracy == pytest.approx((scores[120:].argmax(1) == columns["label"][120:]).mean(), abs=1e-9)
    assert last.accuracy > 0.7  # it has learnt something
    found = client.predict("columns-encoder", {"input_ids": ids[:5], "attention_mask": mask[:5]})
    np.testing.assert_allclose(found["output"] if isinstance(found, dict) else found, scores[:5], atol=1e-4)
