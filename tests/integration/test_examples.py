"""The scripts of examples/ run against a service, say what they are there to say, and run again."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.client import Client
from chainrule.engine import io, models
from tests.engine.models.torch_twins import twin
from tests.integration.conftest import ServerProcess, without_ray

EXAMPLES = Path(__file__).parents[2] / "examples"

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def run(name: str, server: ServerProcess) -> str:
    """What an example prints."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--address", server.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=without_ray())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def number(pattern: str, output: str) -> float:
    """The number in brackets of a pattern, in the only place where it matches."""
    [found] = re.findall(pattern, output)
    return float(found)


@needs_torch
@pytest.mark.torch
def test_a_module_of_pytorch_is_as_accurate_as_the_job_says(server: ServerProcess) -> None:
    output = run("pytorch_module", server)
    accuracy = number(r"computed by PyTorch: +([\d.]+)", output)
    assert accuracy == number(r"the job's last evaluation: ([\d.]+)", output)
    assert accuracy > 0.9


def test_fine_tuning_changes_the_head_alone(server: ServerProcess) -> None:
    output = run("fine_tuning", server)
    assert number(r"accuracy on \d+ digits from 5 to 9: ([\d.]+)", output) > 0.6
    assert "the parameters that have changed are fc.weight, fc.bias\n" in output


def test_a_number_is_predicted_for_each_row_of_a_table(server: ServerProcess) -> None:
    output = run("tabular", server)
    assert "2000 rows of 4 columns" in output
    first, last = (float(r2) for r2 in re.findall(r"400 rows kept back: mae [\d.]+, r2 (-?[\d.]+)", output))
    assert first < last
    assert last > 0.9
    assert abs(number(r"becomes ([\d.]+) strong", output) - 4.2) < 0.5


def test_a_gpt_learns_a_rhyme(server: ServerProcess) -> None:
    output = run("character_gpt", server)
    assert number(r"([\d.]+) at first", output) > 100
    assert number(r"([\d.]+) at last", output) < 4
    assert len(output.partition("It writes:\n")[2]) > 100


def test_pictures_are_predicted_by_the_names_of_their_folders(server: ServerProcess) -> None:
    output = run("image_folder", server)
    assert "450 pictures (3, 16, 16) of circle, square, triangle" in output
    assert number(r"accuracy on 90 pictures kept back: ([\d.]+)", output) > 0.8
    assert len(re.findall(r"a new (\w+) is taken for a \1,", output)) >= 2


def test_what_an_example_has_made_is_there_when_it_runs_again(server: ServerProcess) -> None:
    first, again = (run("image_folder", server).splitlines() for _ in range(2))
    assert first[-1] == again[-1]


@pytest.fixture
def pretrained(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """What is in the file that the guide to fine-tuning begins with, were it trained: torchvision's has no counters."""
    weights = {name: value.numpy() for name, value in models.resnet18(generator=cr.Generator(0)).state_dict().items()}
    without = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAINRULE_ADDRESS", server.address)
    io.save_pth_file(without, "resnet18-f37072fd.pth")
    return weights


def guide(beginning: str) -> CodeType:
    """The example of the guide to fine-tuning that has these words."""
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "docs" / "fine-tuning.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if beginning in block]
    return compile(block, "docs/fine-tuning.md", "exec")


def pictures() -> dict[str, Any]:
    """The pictures of ten classes that the guide speaks of, but small."""
    rng = np.random.default_rng(0)
    return {"x": rng.uniform(size=(40, 3, 32, 32)), "y": rng.integers(0, 10, 40)}


def test_the_guide_to_fine_tuning_does_what_it_says(pretrained: dict[str, np.ndarray]) -> None:
    names = pictures()
    exec(guide("allow_missing"), names)
    tuned = io.load_weights("tuned.pth")
    assert tuned.keys() == pretrained.keys()
    parameters = {name for name, _ in models.resnet18().named_parameters()}
    same = {name for name in parameters if np.array_equal(tuned[name], pretrained[name])}
    assert parameters - same == {"fc.weight", "fc.bias"}
    assert tuned["fc.weight"].shape == (10, 512)
    assert not np.array_equal(tuned["bn1.running_mean"], pretrained["bn1.running_mean"])

    with Client.connect() as client:
        made = client.jobs.get(names["job"].name).status().result_version
        exec(guide("parameter_groups"), names | {"client": client})
        [job] = client.jobs.list(filter='model = "models/tuned"', limit=1)
        assert client.jobs.get(job.name).wait(timeout_s=200).source_version == made


@needs_torch
@pytest.mark.torch
def test_what_was_fine_tuned_goes_back_into_pytorchs_resnet18(
    pretrained: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resnet18(num_classes: int = 1000, weights: str | None = None) -> Any:
        return twin("resnet18", num_classes=num_classes)

    stand_in = SimpleNamespace(models=SimpleNamespace(resnet18=resnet18))  # nothing is downloaded in a test
    monkeypatch.setitem(sys.modules, "torchvision", stand_in)
    names = pictures()
    exec(guide("allow_missing"), names)
    exec(guide("torch.load"), names)
    tuned = io.load_weights("tuned.pth")
    assert all(np.array_equal(value, tuned[name]) for name, value in names["network"].state_dict().items())
    with Client.connect() as client:
        names |= {"client": client, "x": names["x"].astype(np.float32)}
        exec(guide('"own-head"'), names)
        trained = names["job"].state_dict("torch")
    assert all(bool((value == trained[name]).all()) for name, value in names["module"].state_dict().items())


def test_all_examples_are_in_the_table_and_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    rows = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert set(rows) == scripts
    assert scripts == set(re.findall(r'run\("(\w+)"', Path(__file__).read_text()))


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_without_a_service_an_example_says_what_to_do(script: Path) -> None:
    """And it says so before it computes anything."""
    done = subprocess.run(
        [sys.executable, str(script), "--address", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    if script.stem != "pytorch_module" or importlib.util.find_spec("torch") is not None:
        assert "chainrule serve" in done.stderr
