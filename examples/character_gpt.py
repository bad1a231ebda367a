"""A GPT that learns a short text byte by byte, is judged by its perplexity, and then writes by itself."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import chainrule.engine as cr
from chainrule.client import Client
from chainrule.client.reading import ByteTokenizer
from chainrule.engine import nn

RHYME = """This is the house that Jack built.
This is the malt that lay in the house that Jack built.
This is the rat that ate the malt that lay in the house that Jack built.
This is the cat that killed the rat that ate the malt that lay in the house that Jack built.
This is the dog that worried the cat that killed the rat that ate the malt that lay in the house that Jack built.
"""
LENGTH = 32  # tokens of an example, and of what the network looks back on


def write(module: nn.Module, beginning: str, *, length: int, seed: int) -> str:
    """Go on with a text: each byte is drawn with the probability that the network gives it after those before."""
    tokenizer, rng = ByteTokenizer(), np.random.default_rng(seed)
    tokens = tokenizer.encode(beginning)
    module.eval()
    with cr.no_grad():
        for _ in range(length):
            logits = module(cr.tensor([tokens[-LENGTH:]])).numpy()[0, -1].astype(np.float64)
            odds = np.exp((logits - logits.max()) / 0.5)  # 0.5: the likely ones more often
            tokens.append(int(rng.choice(len(odds), p=odds / odds.sum())))
    return tokenizer.decode(tokens)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--address", help="host:port of the service; by default $CHAINRULE_ADDRESS, or localhost:50051")
arguments = parser.parse_args()

with Client.connect(arguments.address) as client, tempfile.TemporaryDirectory() as folder:
    text = Path(folder, "rhyme.txt")
    text.write_text(RHYME * 20)
    dataset = client.datasets.create("example-rhyme", text, length=LENGTH)
    model = client.models.create(
        "example-gpt",
        "gpt",
        config={"vocab_size": ByteTokenizer.vocabulary, "context": LENGTH, "dim": 48, "heads": 4, "layers": 2},
    )
    print(f"{dataset.name}: {dataset.num_examples} times {LENGTH} tokens; {model.num_parameters:,} parameters")
    job = client.jobs.create(
        model=model,
        dataset=dataset,
        epochs=16,
        batch_size=16,
        shards=2,
        workers=2,
        optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.01},
        schedule={"decay": "cosine", "warmup_steps": 10},
        clip_norm=1.0,
        metrics=["perplexity"],
    )
    job.wait(progress=True)
    metrics = job.metrics()
    module = job.module()

first, last = (metrics[step].values["perplexity"] for step in (0, -1))
print(f"perplexity of a byte, of {ByteTokenizer.vocabulary} there are: {first:.1f} at first, {last:.2f} at last")
print("It writes:")
print(write(module, "This is the ", length=160, seed=0))
