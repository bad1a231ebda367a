"""A table in a Parquet file, and a network that predicts a number of each row.

Needs pyarrow: pip install 'chainrule[data]'. The table is made here: concrete mixtures and how strong they become.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chainrule.client import Client

COLUMNS = ["cement", "water", "gravel", "age"]


def write_table(path: Path) -> None:
    """2,000 mixtures; the strength falls with water and grows with cement and, ever more slowly, with age."""
    rng = np.random.default_rng(0)
    cement, water, gravel, age = rng.uniform(size=(4, 2000))
    strength = 1 + 2 * cement - 1.5 * water * (1 - cement) + 0.3 * gravel + np.log1p(3 * age)
    table = {"cement": cement, "water": water, "gravel": gravel, "age": age}
    pq.write_table(pa.table(table | {"strength": strength + rng.normal(scale=0.05, size=2000)}), path)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--address", help="host:port of the service; by default $CHAINRULE_ADDRESS, or localhost:50051")
arguments = parser.parse_args()

with Client.connect(arguments.address) as client, tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "concrete.parquet")
    write_table(file)
    dataset = client.datasets.create("example-concrete", file, target="strength", columns=COLUMNS, regression=True)
    strengths = next(of for of in dataset.statistics if of.column == "targets")
    print(
        f"{dataset.name}: {dataset.num_examples} rows of {len(COLUMNS)} columns, target {strengths.mean:.2f} on average"
    )

    model = client.models.create(
        "example-concrete", "mlp", config={"in_features": len(COLUMNS), "hidden": [32, 32], "num_classes": 1}
    )
    job = client.jobs.create(
        model=model,
        dataset=dataset,
        validation={"fraction": 0.2, "seed": 1},  # drawn, not the last rows
        epochs=15,
        batch_size=50,
        shards=2,
        workers=2,
        optimizer={"name": "adam", "lr": 0.005},
        loss="mse",
        metrics=["mae", "r2"],
    )
    status = job.wait(progress=True)
    for evaluation in (status.evaluations[0], status.evaluations[-1]):
        mae, r2 = evaluation.values["mae"], evaluation.values["r2"]
        print(f"epoch {evaluation.epoch}, {evaluation.num_examples} rows kept back: mae {mae:.3f}, r2 {r2:.3f}")

    mixture = {"cement": 0.9, "water": 0.2, "gravel": 0.5, "age": 0.8}
    [[predicted]] = client.predict(model, [list(mixture.values())]).output
    print(f"a mixture of {mixture} becomes {predicted:.2f} strong")
