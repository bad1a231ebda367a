"""Jobs of models that are code: what is told of them without running it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.engine.models import Outline
from chainrule.server.architecture import CodeArchitecture
from chainrule.server.errors import CodeNotAllowedError, InvalidRequestError
from chainrule.server.records import JobState
from chainrule.server.training.augmentation import Augmentation, Normalize
from chainrule.server.training.config import Loss, Validation
from chainrule.server.training.config import ParameterGroup as Group
from tests.server.conftest import refusal
from tests.server.jobs.submitting import CONFIG, Catalogs


def create_code(catalogs: Catalogs, *, allow_code: bool = True) -> CodeArchitecture:
    """A model "models/code" that is code; whoever runs it here fails."""
    catalogs.models._allow_code = True
    weights = {"weight": np.ones((3, 2), np.float32), "bias": np.zeros(3, np.float32), "kept": np.zeros(1, np.float32)}
    asked = CodeArchitecture(
        catalogs.blobs.put(b"raise SystemExit('it was run')\ndef build(): pass"),
        declared=Outline({"weight": ("", ()), "bias": ("", ())}),
    )
    digest = catalogs.blobs.put(io.save(weights))
    made = catalogs.models.create("code", architecture=asked, weights_digest=digest, init_seed=0, tenant="default")
    catalogs.models._allow_code = allow_code
    assert isinstance(made.architecture, CodeArchitecture)
    return made.architecture


def test_a_job_of_code_is_taken_without_running_it(catalogs: Catalogs) -> None:
    declared = create_code(catalogs).declared
    assert catalogs.submit(model="models/code") == (JobState.QUEUED, True)
    assert declared.buffers == {"kept": ("float32", (1,))}


def test_what_can_be_told_of_a_job_of_code_is_checked(catalogs: Catalogs) -> None:
    create_code(catalogs)
    catalogs.create_dataset("other", (2, 8, 8))
    for config, field, said in (
        (replace(CONFIG, trainable=("kept",)), "job.config.trainable[0]", "its parameters are ['weight', 'bias']"),
        (
            replace(CONFIG, parameter_groups=(Group(("x",), lr=1),)),
            "job.config.parameter_groups[0].patterns[0]",
            "matches no parameter",
        ),
        (
            replace(CONFIG, augmentation=Augmentation((Normalize((0.5, 0.5), (1, 1)),))),
            "job.config.augmentation.transforms[0].mean",
            "images have 1 channels",
        ),
        (
            replace(CONFIG, losses=(Loss(example_weight="weights"),)),
            "job.config.losses[0].example_weight",
            'is \'weights\', but "datasets/d" has "inputs" and "targets"',
        ),
        (
            replace(CONFIG, validation=Validation(dataset="datasets/other")),
            "job.config.validation.dataset",
            "evaluate on a dataset of the same",
        ),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            catalogs.submit(model="models/code", config=config)
        assert (refusal(caught).field, said in refusal(caught).description) == (field, True)


def test_a_job_of_code_is_refused_where_that_is_not_allowed(catalogs: Catalogs) -> None:
    create_code(catalogs, allow_code=False)
    with pytest.raises(CodeNotAllowedError, match=r'"models/code" is Python code, which this server does not have run'):
        catalogs.submit(model="models/code")
