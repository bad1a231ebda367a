"""A folder of pictures, one sub-folder for each class, and predictions with the names of the classes.

Needs Pillow: pip install 'chainrule[data]'. The pictures are drawn here.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from chainrule.client import Client

SIZE = 16
CLASSES = ["circle", "square", "triangle"]


def draw(kind: str, rng: np.random.Generator) -> Image.Image:
    """A shape of random colour, place and size on a background of random colour."""
    dark, bright = rng.integers(0, 100, 3), rng.integers(150, 256, 3)
    picture = Image.new("RGB", (SIZE, SIZE), tuple(map(int, dark)))
    size = int(rng.integers(7, 12))
    left, top = (int(rng.integers(0, SIZE - size)) for _ in range(2))
    box, pen, colour = (left, top, left + size, top + size), ImageDraw.Draw(picture), tuple(map(int, bright))
    if kind == "circle":
        pen.ellipse(box, fill=colour)
    elif kind == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], fill=colour)
    return picture


def write_folder(folder: Path, *, count: int, seed: int) -> None:
    """`count` pictures of each class as folder/circle/0.png and so on."""
    rng = np.random.default_rng(seed)
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            draw(kind, rng).save(folder / kind / f"{number}.png")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--address", help="host:port of the service; by default $CHAINRULE_ADDRESS, or localhost:50051")
arguments = parser.parse_args()

with Client.connect(arguments.address) as client, tempfile.TemporaryDirectory() as temporary:
    write_folder(Path(temporary, "shapes"), count=150, seed=0)
    dataset = client.datasets.create("example-shapes", Path(temporary, "shapes"))
    print(f"{dataset.name}: {dataset.num_examples} pictures {dataset.input_shape} of {', '.join(dataset.class_labels)}")
    model = client.models.create(
        "example-shapes",
        "small_cnn",
        config={"in_channels": 3, "image_size": SIZE, "num_classes": len(CLASSES)},
        class_labels=dataset.class_labels,
    )
    job = client.jobs.create(
        model=model,
        dataset=dataset,
        validation={"fraction": 0.2, "seed": 1},  # the folder is sorted by class: drawn, not the last ones
        epochs=15,
        batch_size=30,
        shards=2,
        workers=2,
        optimizer={"name": "adam", "lr": 0.005},
        schedule={"decay": "cosine"},
        augmentation=[
            "random_flip",
            {"name": "random_crop", "height": SIZE, "width": SIZE, "padding": 2},
            {"name": "color_jitter", "brightness": 0.2},
        ],
    )
    status = job.wait(progress=True)
    print(
        f"accuracy on {status.evaluations[-1].num_examples} pictures kept back: {status.evaluations[-1].accuracy:.3f}"
    )

    rng = np.random.default_rng(99)
    for kind in CLASSES:
        picture = np.asarray(draw(kind, rng), np.float32) / 255  # the workers have divided by 255, too
        [[best]] = client.predict(model, picture.transpose(2, 0, 1)[None]).classes()
        print(f"a new {kind} is taken for a {best.label}, with probability {best.probability:.3f}")
