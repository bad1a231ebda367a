"""`chainrule datasets`: upload datasets; list, change and remove them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from chainrule.client.cli.output import Format, short_digest, size, when
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session, reported
from chainrule.client.cli.transfer import transfer_shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from chainrule.client.preview import Preview
    from chainrule.client.reading import Tokenizer
    from chainrule.client.resources import ColumnStatistics, Dataset

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


@app.command("create")
def create(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name: lower-case letters, digits, hyphens.")],
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            exists=True,
            help="A .npz, .csv, .tsv, .parquet, .jsonl or .txt file, or a folder of pictures by class.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="COLUMN", help="The column that is the target; texts become classes."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="COLUMN,...", help="The columns that are inputs; by default all others."),
    ] = None,
    further: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME[=COLUMN,...]",
            help="A further column of the dataset, as a weight of examples; of a column of the table, or of several.",
        ),
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="The inputs are tokens (N, T): whole numbers from 0, sent as int64.")
    ] = False,
    regression: Annotated[
        bool, typer.Option("--regression", help="The targets are numbers to predict, sent as float32, not classes.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="uint8 inputs of a .npz file stay bytes, divided by 255 in training.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="HEIGHT[xWIDTH]", help="Scale the pictures of a folder to this size."),
    ] = None,
    gray: Annotated[bool, typer.Option("--gray", help="Read the pictures of a folder with one channel.")] = False,
    text: Annotated[str, typer.Option("--text", metavar="FIELD", help="Field of JSON lines with the text.")] = "text",
    length: Annotated[int, typer.Option("--length", min=1, help="Tokens of an example made from text.")] = 128,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A file of BytePairTokenizer.save; by default the tokens of a text are its bytes.",
        ),
    ] = None,
    limit_bytes: Annotated[
        int | None,
        typer.Option("--limit-bytes", min=1, help="Most bytes that a compressed file may unfold to."),
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option("--uri", metavar="URI", help="Write the examples to this folder, which the service may read."),
    ] = None,
    labels: LabelsOption = None,
    description: DescriptionOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Make a dataset from a file, or a folder of pictures, of any size: it is read and sent some at a time."""
    notes = parse_labels(labels)
    with reported(ctx, form):
        wanted_size = parse_size(size)
        wanted = parse_columns(columns, further)
        known = None if tokenizer is None else _load_tokenizer(tokenizer)
    with open_session(ctx, address, form) as session:
        with transfer_shown(session, "examples") as transferred:
            made = session.client.datasets.create(
                dataset,
                path,
                target=target,
                columns=wanted,
                tokens=tokens,
                regression=regression,
                pictures=pictures,
                size=wanted_size,
                gray=gray,
                text=text,
                length=length,
                tokenizer=known,
                limit_bytes=limit_bytes,
                uri=uri,
                labels=notes,
                description=description or "",
                transferred=transferred,
            )
        _show(session, made)


@app.command("show")
def show(
    ctx: typer.Context,
    dataset: DatasetArgument,
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="How many of the first examples to fetch and show, too.")
    ] = 5,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Show a dataset: its columns, what their numbers are, and the first examples."""
    with open_session(ctx, address, form) as session:
        found = session.client.datasets.get(dataset)
        first = session.client.datasets.preview(found, rows) if rows and session.output.form is not Format.JSON else {}
        _show(session, found, first)


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


def parse_columns(inputs: str | None, further: list[str] | None) -> "list[str] | dict[str, Any] | None":
    """The columns that --columns and --column name. Raises InvalidInputError."""
    from chainrule.client.errors import InvalidInputError

    listed = None if inputs is None else inputs.split(",")
    if not further:
        return listed
    found: dict[str, Any] = {} if listed is None else {"inputs": listed}
    for given in further:
        name, told, columns = given.partition("=")
        if not name or (told and not columns) or name in found:
            raise InvalidInputError(
                f'--column is "{given}"; give each once, as NAME or NAME=COLUMN or NAME=COLUMN,COLUMN'
            )
        several = columns.split(",")
        found[name] = several if len(several) > 1 else columns or name
    return found


def parse_size(size: str | None) -> tuple[int, int] | None:
    """The height and width in "64" or "48x64". Raises InvalidInputError."""
    from chainrule.client.errors import InvalidInputError

    if size is None:
        return None
    numbers = size.lower().split("x")
    if len(numbers) > 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise InvalidInputError(f'--size is "{size}"; give a height, or height and width as 48x64')
    return int(numbers[0]), int(numbers[-1])


def _load_tokenizer(path: Path) -> "Tokenizer":
    from chainrule.client.reading import BytePairTokenizer

    return BytePairTokenizer.load(path)


def _show(session: Session, dataset: "Dataset", first: "Preview | None" = None) -> None:
    has_inputs = not dataset.columns or any(of.name == "inputs" for of in dataset.columns)
    session.output.record(
        dataset,
        [
            ("dataset", dataset.name),
            ("sha256", dataset.digest),
            ("examples", f"{dataset.num_examples:,}"),
            *((("input shape", str(dataset.input_shape)),) if has_inputs else ()),
            ("classes", str(dataset.num_classes)),
            ("size", size(dataset.size_bytes)),
            *((("chunks", f"{dataset.num_chunks:,}"),) if dataset.num_chunks else ()),
            *((("chunks are in", dataset.source_uri),) if dataset.source_uri else ()),
            *((of.name, f"{of.dtype} {of.shape}") for of in dataset.columns),
            *((f"{of.column} are", _numbers(of)) for of in dataset.statistics),
            *((("class labels", ", ".join(dataset.class_labels[:20])),) if dataset.class_labels else ()),
            ("labels", labels_text(dataset.labels)),
            *((("description", dataset.description),) if dataset.description else ()),
            *(
                (f"{column}[{row}]", _short(value))
                for column, values in (first or {}).items()
                for row, value in enumerate(values)
            ),
            ("created", when(dataset.create_time)),
        ],
    )


def _numbers(of: "ColumnStatistics") -> str:
    return f"{of.min:g} to {of.max:g}, mean {of.mean:.4g} ± {of.std:.4g}"


def _short(value: "NDArray[np.generic]") -> str:
    """The first numbers of an example."""
    numbers = value.reshape(-1)[:8].tolist()
    shown = ", ".join(f"{number:.4g}" if isinstance(number, float) else str(number) for number in numbers)
    return f"{shown}, …" if value.size > len(numbers) else shown


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
