"""Classifiers of whole sequences, of tokens or of samples, on any mixer, with the baselines they are held to.

    config = ClassifierConfig(classes=10, channels=1, mixers=("s4d",), max_length=784)
    model = Classifier(config, seed=0)
    model(samples, lengths)                # (B, 784, 1), (B,) -> logits (B, 10)
    save(model, "model");  model = load("model")

Layers, the mean over a row's real positions, and a linear head, as the Long Range Arena's models have them
(Tay et al. 2021, arXiv 2011.04006; Gu et al. 2022, arXiv 2111.00396, app. D). Padding behind a row's end is
never counted, and never seen by what looks ahead.
"""

from __future__ import annotations

from posterhall.models.classifier.config import BOTH_WAYS, RECURRENT, WHOLE, ClassifierConfig
from posterhall.models.classifier.files import load, save
from posterhall.models.classifier.model import Classifier
from posterhall.models.classifier.sizes import lengthened, parameters, sized

__all__ = [
    "BOTH_WAYS",
    "RECURRENT",
    "WHOLE",
    "Classifier",
    "ClassifierConfig",
    "lengthened",
    "load",
    "parameters",
    "save",
    "sized",
]
