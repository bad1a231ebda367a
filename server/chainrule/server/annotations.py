"""What people and programs note on models, datasets and jobs: labels and a description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from chainrule.server.errors import InvalidRequestError, Violation, echo

MAX_LABELS = 64
MAX_LABEL_VALUE_LENGTH = 63
MAX_DESCRIPTION_LENGTH = 1000
"""In characters; of tokens, too."""
LABEL_KEY = re.compile(r"[a-z][a-z0-9_./-]{0,62}")


@dataclass(frozen=True)
class AnnotationChange:
    """What to note instead of what is noted; None: that stays."""

    labels: Mapping[str, str] | None = None
    description: str | None = None


def annotation_violations(*, labels: Mapping[str, str], description: str, field: str) -> list[Violation]:
    """What is wrong with the labels and the description of a resource, which the request has in `field`."""
    found = []
    if len(labels) > MAX_LABELS:
        found.append(Violation(f"{field}.labels", f"are {len(labels)}; use at most {MAX_LABELS}"))
    for key, value in sorted(labels.items()):
        where = f"{field}.labels[{echo(key)}]"
        if not LABEL_KEY.fullmatch(key):
            found.append(
                Violation(
                    where,
                    "is no key of a label; use 1 to 63 lower-case letters, digits, and characters of _-./, beginning "
                    'with a letter, for example "team"',
                )
            )
        if len(value) > MAX_LABEL_VALUE_LENGTH:
            found.append(Violation(where, f"has {len(value)} characters; use at most {MAX_LABEL_VALUE_LENGTH}"))
        if "\0" in value:
            found.append(Violation(where, f"is {echo(value)}; leave out the NUL"))
    if len(description) > MAX_DESCRIPTION_LENGTH:
        most = f"{MAX_DESCRIPTION_LENGTH:,}"
        found.append(Violation(f"{field}.description", f"has {len(description):,} characters; use at most {most}"))
    if "\0" in description:
        found.append(Violation(f"{field}.description", f"is {echo(description)}; leave out the NUL"))
    return found


def check_annotations(*, labels: Mapping[str, str], description: str, field: str) -> None:
    """Raises InvalidRequestError naming all that is wrong with them."""
    found = annotation_violations(labels=labels, description=description, field=field)
    if found:
        raise InvalidRequestError(found)


def check_annotation_change(change: AnnotationChange, *, field: str) -> None:
    """As `check_annotations`, of what is to be changed."""
    check_annotations(labels=change.labels or {}, description=change.description or "", field=field)
