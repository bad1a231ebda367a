"""`chainrule datasets`: upload datasets; list, change and remove them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chainrule.client.cli.connecting import Commands
from chainrule.client.cli.options import (
    DatasetArgument,
    DescriptionOption,
    EtagOption,
    FilterOption,
    LabelsOption,
    LimitOption,
    MissingOkOption,
    NewLabelsOption,
    NoLabelsOption,
    OrderByOption,
    YesOption,
    confirm_removal,
    labels_text,
    new_labels,
    parse_labels,
)
from chainrule.client.cli.output import short_digest, size, when
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session, reported
from chainrule.client.cli.transfer import transfer_shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from chainrule.client.resources import Dataset

app = Commands(help="Upload datasets; list, change and remove them.", no_args_is_help=True)

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
    labels: LabelsOption = None,
    description: DescriptionOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Upload a dataset: inputs (N, ...) as float32, targets (N) or, one for each token, (N, T) as labels from 0."""
    notes = parse_labels(labels)
    with reported(ctx, form):
        inputs, targets = read_examples(file)
    with open_session(ctx, address, form) as session:
        with transfer_shown(session, "examples") as transferred:
            made = session.client.datasets.create(
                dataset,
                inputs=inputs,
                targets=targets,
                tokens=tokens,
                labels=notes,
                description=description or "",
                transferred=transferred,
            )
        _show(session, made)


@app.command("ls")
def list_datasets(
    ctx: typer.Context,
    filter: FilterOption = "",
    order_by: OrderByOption = "",
    limit: LimitOption = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List datasets, newest first unless told otherwise."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.datasets.list(filter=filter, order_by=order_by, limit=limit),
            {
                "DATASET": lambda d: d.name,
                "EXAMPLES": lambda d: f"{d.num_examples:,}",
                "INPUT SHAPE": lambda d: str(d.input_shape),
                "CLASSES": lambda d: str(d.num_classes),
                "SIZE": lambda d: size(d.size_bytes),
                "SHA256": lambda d: short_digest(d.digest),
                "LABELS": lambda d: labels_text(d.labels),
                "CREATED": lambda d: when(d.create_time),
            },
        )


@app.command("update")
def update(
    ctx: typer.Context,
    dataset: DatasetArgument,
    labels: NewLabelsOption = None,
    no_labels: NoLabelsOption = False,
    description: DescriptionOption = None,
    etag: EtagOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Change labels or description of a dataset."""
    notes = new_labels(labels, none=no_labels)
    with open_session(ctx, address, form) as session:
        _show(session, session.client.datasets.update(dataset, labels=notes, description=description, etag=etag))


@app.command("rm")
def remove(
    ctx: typer.Context,
    dataset: DatasetArgument,
    etag: EtagOption = None,
    missing_ok: MissingOkOption = False,
    yes: YesOption = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Remove a dataset. One that jobs use which have not ended is refused."""
    confirm_removal(dataset, yes=yes)
    with open_session(ctx, address, form) as session:
        session.client.datasets.delete(dataset, etag=etag, missing_ok=missing_ok)
        session.output.note(f"removed {dataset}")


def _show(session: Session, dataset: "Dataset") -> None:
    session.output.record(
        dataset,
        [
            ("dataset", dataset.name),
            ("sha256", dataset.digest),
            ("examples", f"{dataset.num_examples:,}"),
            ("input shape", str(dataset.input_shape)),
            ("classes", str(dataset.num_classes)),
            ("size", size(dataset.size_bytes)),
            ("labels", labels_text(dataset.labels)),
            *((("description", dataset.description),) if dataset.description else ()),
            ("created", when(dataset.create_time)),
        ],
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
