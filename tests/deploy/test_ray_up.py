"""The configuration for `ray up`, as Ray reads it."""

from __future__ import annotations

from pathlib import Path

import ray

from tests.deploy.files import DEPLOY, ROOT, check, load

CONFIGURATION = DEPLOY / "ray" / "cluster.yaml"


def test_it_is_what_rays_schema_allows() -> None:
    check(
        "check-jsonschema", "--schemafile", Path(ray.__file__).parent / "autoscaler" / "ray-schema.json", CONFIGURATION
    )


def test_every_machine_is_a_worker_all_the_time() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load(CONFIGURATION))
    validate_config(prepared)
    [kind] = prepared["available_node_types"].values()
    assert (kind["min_workers"], kind["max_workers"]) == (2, 2)


def test_every_node_is_started_with_the_token() -> None:
    configuration = load(CONFIGURATION)
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in configuration[key]
        if " start" in command
    ]
    assert len(starts) == 2
    for start in starts:
        assert start.startswith("RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/chainrule/ray-token ")
    assert "~/chainrule/ray-token" in configuration["file_mounts"]


def test_what_it_copies_is_there_or_is_to_be_made() -> None:
    sources = set(load(CONFIGURATION)["file_mounts"].values())
    assert sources == {"./ray-token", "../../constraints.txt", "../../dist"}
    assert (ROOT / "constraints.txt").exists()
