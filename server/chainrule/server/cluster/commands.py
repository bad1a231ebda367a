"""`chainrule cluster up`, `down` and `status`: a Ray cluster of several nodes on this machine, for servers to join."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from chainrule.server.cluster import LocalCluster
from chainrule.server.cluster.local import DEFAULT_NAME, name_option
from chainrule.server.errors import ServiceError


class Form(StrEnum):
    """The form of what is printed."""

    TABLE = "table"
    JSON = "json"


NameOption = Annotated[str, typer.Option("--name", help="Which cluster, if there are several.")]
FormOption = Annotated[Form, typer.Option("--format", help="Lines for people or JSON for programs.")]


def up(
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes, the head included. \\[default: 1]", show_default=False)
    ] = None,
    cpus_per_node: Annotated[
        int | None,
        typer.Option(
            min=1, help="Worker places of each node. \\[default: the machine's CPUs, shared out]", show_default=False
        ),
    ] = None,
    name: NameOption = DEFAULT_NAME,
    form: FormOption = Form.TABLE,
) -> None:
    """Start a Ray cluster on this machine that runs until `chainrule cluster down`, if it is not up already.

    It listens on loopback only and asks for a token, which `chainrule serve --ray-address` finds by itself.
    """
    with _reported():
        cluster = LocalCluster.find(name)
        if cluster is not None and cluster.alive:
            headline = f'cluster "{name}" is up already, at {cluster.address}'
            if nodes not in (None, len(cluster.nodes)):
                headline += f"; it has {len(cluster.nodes)} nodes: to have {nodes}, end it first"
        else:
            cluster = LocalCluster.start(nodes or 1, cpus_per_node=cpus_per_node, name=name)
            headline = f'cluster "{name}" is up at {cluster.address}'
        _print(
            form,
            _as_json(cluster),
            [
                headline,
                *_node_lines(cluster),
                f"join it: chainrule serve --ray-address {cluster.address}",
                f"end it:  chainrule cluster down{name_option(name)}",
            ],
        )


def down(name: NameOption = DEFAULT_NAME, form: FormOption = Form.TABLE) -> None:
    """End a cluster that `chainrule cluster up` has started: all of its processes, and what runs on it."""
    with _reported():
        cluster = LocalCluster.find(name)
        if cluster is None:
            _print(form, None, [f'cluster "{name}" is not up'])
            return
        before = _as_json(cluster)
        cluster.stop()
        _print(form, before, [f'cluster "{name}" is down'])


def status(name: NameOption = DEFAULT_NAME, form: FormOption = Form.TABLE) -> None:
    """Show the nodes of a cluster that `chainrule cluster up` has started. Exit code 1: it is not up."""
    with _reported():
        cluster = LocalCluster.find(name)
        if cluster is None:
            _print(form, None, [f'cluster "{name}" is not up; start it with: chainrule cluster up{name_option(name)}'])
            raise typer.Exit(1)
        head = "up" if cluster.alive else "dead: its head is gone"
        _print(form, _as_json(cluster), [f'cluster "{name}" at {cluster.address} is {head}', *_node_lines(cluster)])
        if not cluster.alive:
            raise typer.Exit(1)


def _as_json(cluster: LocalCluster) -> dict[str, Any]:
    return {
        "name": cluster.name,
        "address": cluster.address,
        "alive": cluster.alive,
        "nodes": [
            {
                "node_id": node.node_id,
                "is_head": node.is_head,
                "cpus": node.cpus,
                "alive": node.alive,
                "pids": node.pids,
            }
            for node in cluster.nodes
        ],
    }


def _node_lines(cluster: LocalCluster) -> list[str]:
    return [
        f"  node {node.node_id[:8]}  {'head' if node.is_head else '    '}  {node.cpus} CPU{'s' * (node.cpus > 1)}  "
        f"{'alive' if node.alive else 'dead '}  pids {' '.join(map(str, node.pids)) or '-'}"
        for node in cluster.nodes
    ]


def _print(form: Form, value: dict[str, Any] | None, lines: list[str]) -> None:
    print(json.dumps(value, indent=2) if form is Form.JSON else "\n".join(lines))


@contextmanager
def _reported() -> Iterator[None]:
    """Turn an error into one line and exit code 1."""
    try:
        yield
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
