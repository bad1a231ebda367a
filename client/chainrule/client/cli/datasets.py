"""`chainrule datasets`: upload datasets and list them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chainrule.client.cli.output import short_digest, size, when
from chainrule.client.cli.session import AddressOption, FormatOption, open_session, reported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(help="Upload datasets and list them.", no_args_is_help=True)

ZIP_MAGIC, NPY_MAGIC = b"PK", b"\x93NUMPY"  # a .npz file is a zip archive of .npy files
ARRAY_NAMES = (("inputs", "targets"), ("x", "y"))


@app.command("push")
def push(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name: lower-case letters, digits, hyphens.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A .npz file with inputs and targets (or x and y).",
        ),
    ],
    tokens: Annotated[
        bool, typer.Option("--tokens", help="The inputs are tokens (N, T): whole numbers from 0, sent as int64.")
    ] = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Upload a dataset: inputs (N, ...) as float32, targets (N) or, one for each token, (N, T) as labels from 0."""
    with reported(ctx, form):
        inputs, targets = read_examples(file)
    with open_session(ctx, address, form) as session:
        made = session.client.datasets.create(dataset, inputs=inputs, targets=targets, tokens=tokens)
        session.output.record(
            made,
            [
                ("dataset", made.name),
                ("sha256", made.digest),
                ("examples", f"{made.num_examples:,}"),
                ("input shape", str(made.input_shape)),
                ("classes", str(made.num_classes)),
                ("size", size(made.size_bytes)),
                ("created", when(made.create_time)),
            ],
        )


@app.command("ls")
def list_datasets(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List datasets, newest first."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.datasets.list(limit=limit),
            {
                "DATASET": lambda d: d.name,
                "EXAMPLES": lambda d: f"{d.num_examples:,}",
                "INPUT SHAPE": lambda d: str(d.input_shape),
                "CLASSES": lambda d: str(d.num_classes),
                "SIZE": lambda d: size(d.size_bytes),
                "SHA256": lambda d: short_digest(d.digest),
                "CREATED": lambda d: when(d.create_time),
            },
        )


def read_examples(file: Path) -> "tuple[NDArray[np.generic], NDArray[np.generic]]":
    """The arrays inputs and targets (or x and y) of a .npz file; nothing in it is ever executed.

    Raises:
        InvalidInputError: the file is not such a file.
    """
    import zipfile

    import numpy as np

    from chainrule.client.errors import InvalidInputError

    try:
        with file.open("rb") as stream:
            is_numpys = stream.read(len(NPY_MAGIC)).startswith((ZIP_MAGIC, NPY_MAGIC))
            stream.seek(0)
            loaded = np.load(stream, allow_pickle=False) if is_numpys else None
            arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else None
    except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{file} cannot be read as a .npz file: {error}") from error
    if not is_numpys:
        raise InvalidInputError(f"{file} is not a .npz file; write one with numpy.savez(file, inputs=..., targets=...)")
    if arrays is None:
        raise InvalidInputError(f"{file} holds one array; a dataset is a .npz file with inputs and targets")
    for inputs, targets in ARRAY_NAMES:
        if inputs in arrays and targets in arrays:
            return arrays[inputs], arrays[targets]
    names = ", ".join(arrays) or "none"
    raise InvalidInputError(f"{file} has the arrays {names}; a dataset needs inputs and targets (or x and y)")
