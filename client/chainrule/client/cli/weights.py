"""`chainrule weights`: fetch what a job has produced, or any version of a model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from chainrule.client.cli.completion import complete_weights
from chainrule.client.cli.connecting import Commands
from chainrule.client.cli.output import size
from chainrule.client.cli.session import AddressOption, FormatOption, open_session
from chainrule.client.cli.transfer import download_shown

app = Commands(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Fetch what a job has produced, or any version of a model."""


@app.command("get")
def get(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="JOB|VERSION",
            help="A job that has SUCCEEDED: jobs/bea3phtux7dd; or a version of a model: models/digits/versions/2, "
            "or models/digits, which is its newest.",
            autocompletion=complete_weights,
        ),
    ],
    file: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="The .safetensors file to write.")
    ],
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Write weights to a safetensors file, checked against their digest."""
    with open_session(ctx, address, form) as session:
        from chainrule.engine import io

        with download_shown(session, "weights") as received:
            is_version = source.startswith("models/") or "/versions/" in source
            named = session.client.models.version(source) if is_version else session.client.jobs.get(source)
            content = named.weights_file(received=received)
        digest = io.digest(content)
        _write_whole(file, content)
        session.output.record(
            {"file": str(file), "size_bytes": len(content), "weights_digest": digest},
            [("file", str(file)), ("size", size(len(content))), ("weights sha256", digest)],
        )


def _write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is there with all of its content or not at all."""
    from chainrule.client.errors import InvalidInputError

    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        try:
            part.write_bytes(content)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write {file}: {error.strerror}") from error
