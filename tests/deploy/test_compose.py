"""The compose file: what the specification allows, and what keeps Ray to itself."""

from __future__ import annotations

from tests.deploy.files import DEPLOY, check, load

COMPOSE = DEPLOY / "compose.yaml"


def test_it_is_what_the_compose_specification_allows() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_nobody_outside_reaches_ray() -> None:
    compose = load(COMPOSE)
    assert compose["networks"]["ray"] == {"internal": True}
    for name in ("ray-head", "worker"):
        assert compose["services"][name]["networks"] == ["ray"]
        assert "ports" not in compose["services"][name]


def test_every_node_of_ray_has_the_token() -> None:
    for service in load(COMPOSE)["services"].values():
        assert service["secrets"] == ["ray_token"]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"


def test_every_container_is_watched_and_started_again() -> None:
    for service in load(COMPOSE)["services"].values():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
