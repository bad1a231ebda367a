"""`chainrule predict`: what the network of a model makes of a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.client.cli.completion import complete_model
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session

if TYPE_CHECKING:
    from chainrule.client.prediction import Prediction, RankedClass

ModelOrVersionArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|VERSION",
        help="A model, which stands for its newest version: digits; or a version: digits/versions/2.",
        autocompletion=complete_model,
    ),
]
FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="The inputs: a .npy file, (examples, ...); a .npz file, whose arrays are named as the network's inputs; "
        "or an image, which is resized to what a network of one size takes.",
    ),
]
TopOption = Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes to name of each example.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        dir_okay=False,
        help="Write the outputs to a .npy file or, by their names, to a .npz file.",
        show_default=False,
    ),
]
TokensOption = Annotated[bool, typer.Option("--tokens", help="The inputs are tokens: sent as int64, not as float32.")]
AloneOption = Annotated[
    bool, typer.Option("--alone", help="Compute no request together with those of others: the same bits every time.")
]
PreparedOption = Annotated[
    bool,
    typer.Option("--prepared", help="The inputs are resized and normalised already, as the version was trained with."),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(min=1, help="Most examples of one request. Without it: at most 64.", show_default=False),
]


def predict(
    ctx: typer.Context,
    model: ModelOrVersionArgument,
    file: FileArgument,
    top: TopOption = 1,
    out: OutOption = None,
    tokens: TokensOption = False,
    alone: AloneOption = False,
    prepared: PreparedOption = False,
    batch_size: BatchSizeOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Have the server compute what a network makes of a file, and name the classes it finds most likely."""
    if out is not None and out.suffix not in (".npy", ".npz"):
        raise typer.BadParameter(f"{out} ends in neither .npy nor .npz.", param_hint="--out")
    with open_session(ctx, address, form) as session:
        inputs = _inputs(session, model, file, prepared=prepared)
        prediction = session.client.predict(
            model, inputs, tokens=tokens, alone=alone, prepared=prepared, batch_size=batch_size
        )
        if out is not None:
            _write(prediction, out)
        _show(session, prediction, top)


def _inputs(session: Session, model: str, file: Path, *, prepared: bool) -> Any:
    from chainrule.client.input_files import is_image, read_arrays, read_image

    if not is_image(file):
        return read_arrays(file)
    if not prepared and (shape := _trained_on(session, model)) is not None:
        channels, height, width = shape
        return read_image(file, channels=channels, size=(height, width))
    name = model.removeprefix("models/").partition("/")[0]
    config = session.client.models.get(name).config
    size = config.get("image_size")
    return read_image(file, channels=config.get("in_channels"), size=None if size is None else (size, size))


def _trained_on(session: Session, model: str) -> tuple[int, int, int] | None:
    """Channels, height and width of the images that a version was trained on, before its job prepared them; None: of
    no images, or they are not there any more."""
    from chainrule.client.errors import NotFound

    version = session.client.models.version(model)
    if version.dataset is None:
        return None
    try:
        dataset = session.client.datasets.get(version.dataset)
    except NotFound:
        return None
    if dataset.digest != version.dataset_digest or len(dataset.input_shape) != 3:
        return None
    channels, height, width = dataset.input_shape
    return channels, height, width


def _show(session: Session, prediction: "Prediction", top: int) -> None:
    from chainrule.client.cli.output import Format

    outputs = [
        {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        for name, array in prediction.outputs.items()
    ]
    classes = prediction.classes(top) if _tells_classes(prediction) else None
    if session.output.form is Format.JSON:
        session.output.record({"version": prediction.version, "outputs": outputs, "classes": classes}, [])
        return
    session.output.note(prediction.version)
    if classes is None:
        columns = {key: lambda output, key=key: str(output[key]) for key in ("name", "dtype", "shape")}
        session.output.rows(outputs, columns)
        return
    rows = [(example, ranked) for example, best in enumerate(classes) for ranked in best]
    session.output.rows(rows, _columns(any(ranked.label for _, ranked in rows)))


def _tells_classes(prediction: "Prediction") -> bool:
    if len(prediction.outputs) != 1:
        return False
    scores = prediction.output
    return scores.ndim == 2 and scores.shape[1] > 1 and scores.dtype.kind == "f"


def _columns(with_labels: bool) -> dict[str, Any]:
    def column(show: Any) -> Any:
        def text(row: "tuple[int, RankedClass]") -> str:
            return str(show(*row))

        return text

    columns = {"example": column(lambda example, _: example), "class": column(lambda _, ranked: ranked.index)}
    if with_labels:
        columns["label"] = column(lambda _, ranked: ranked.label or "")
    return columns | {"probability": column(lambda _, ranked: f"{ranked.probability:.4f}")}


def _write(prediction: "Prediction", out: Path) -> None:
    import numpy as np

    from chainrule.client.errors import InvalidInputError

    part = out.with_name(f".{out.name}.part{out.suffix}")
    try:
        try:
            if out.suffix == ".npy":
                np.save(part, prediction.output)
            else:
                np.savez(part, **dict(prediction.outputs))  # type: ignore[arg-type]  # names are the file's own
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"cannot write {out}: {error.strerror}") from error
