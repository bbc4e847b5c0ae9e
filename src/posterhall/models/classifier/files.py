"""Classifiers as files: config.json and model.safetensors, under their own names."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from posterhall.config import plain
from posterhall.errors import DataError, did_you_mean
from posterhall.extras import require, torch
from posterhall.models import hub
from posterhall.models.classifier.config import RECURRENT, ClassifierConfig
from posterhall.models.classifier.model import Classifier
from posterhall.models.mixers import MIXERS
from posterhall.runs.files import write_atomic

MODEL_TYPE = "posterhall_classifier"
_FIELDS = {each.name: each for each in dataclasses.fields(ClassifierConfig)}


def save(model: Classifier, directory: Path | str) -> Path:
    """Write a classifier: its shape, and its weights with what standardises samples.

    Files appear together: they are written beside, and moved.

    Args:
        model: on mixers of this library.
        directory: where; files of a model there are replaced.

    Returns:
        The directory.

    Raises:
        DataError: for mixers of one's own, which nobody could make again, and where nothing can be written.
        MissingExtra: without safetensors.
    """
    safetensors = require("safetensors.torch", "train", "saving a classifier")
    directory = Path(directory)
    others = sorted(set(model.config.mixers) - MIXERS.keys() - set(RECURRENT))
    if others:
        raise DataError(
            f"cannot save a classifier on {', '.join(others)}: who reads it does not know such mixers; save "
            "its state_dict() yourself"
        )
    config = {
        "architectures": ["PosterhallClassifier"],
        "model_type": MODEL_TYPE,
        **plain({name: getattr(model.config, name) for name in _FIELDS}),
    }
    tensors = {name: each.detach().cpu().contiguous() for name, each in model.state_dict().items()}
    beside = directory.with_name(f".{directory.name[:60]}.{os.urandom(6).hex()}.tmp")
    try:
        beside.mkdir(parents=True)
        safetensors.save_file(tensors, beside / hub.WEIGHTS, metadata={"format": "pt"})
        hub.sync(beside / hub.WEIGHTS)
        write_atomic(beside / hub.CONFIG, json.dumps(config, indent=2) + "\n")
        hub.move(beside, directory)
    except OSError as error:
        raise DataError(f"cannot write {directory}: {error.strerror}; choose another place") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return directory


def load(path: Path | str, *, device: Any = "cpu") -> Classifier:
    """Read a classifier of `save`.

    Args:
        path: its directory.
        device: where to put it.

    Returns:
        The model, in evaluation mode.

    Raises:
        DataError: for what is not there, damaged, or something else.
        MissingExtra: without torch or safetensors.
    """
    require("safetensors", "train", "loading a classifier")
    directory = Path(path)
    place = directory / hub.CONFIG
    given = hub.read_json(place)
    if given.get("model_type") != MODEL_TYPE:
        raise DataError(
            f"{place}: model_type is {given.get('model_type')!r}; a classifier's is {MODEL_TYPE!r}"
        )
    known = {name: given[name] for name in _FIELDS if name in given}
    strange = sorted(given.keys() - known.keys() - {"architectures", "model_type"})
    if strange:
        raise DataError(f"{place}: unknown setting '{strange[0]}'.{did_you_mean(strange[0], _FIELDS)}")
    try:
        model = Classifier(ClassifierConfig(**known), seed=None)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except (TypeError, AttributeError) as error:
        raise DataError(f"{place}: does not describe a classifier: {error}") from None
    file = directory / hub.WEIGHTS
    if not file.is_file():
        raise DataError(f"{file} is missing; copy the whole directory again")
    tensors = dict(hub.tensors_of(file))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: its tensors do not fit {hub.CONFIG}: {reason[:300]}") from None
    wrong = next((name for name, each in tensors.items() if not bool(torch.isfinite(each).all())), None)
    if wrong is not None:
        raise DataError(f"{file}: {wrong} holds numbers that are not finite; the training went wrong")
    return model.to(device).eval()
