"""Which model a job trains: as named, or chosen by the data, with the reason in words."""

from dataclasses import dataclass

import torch

from service.jobs.document import JobDocument

_MANY_IMAGES = 10_000


@dataclass(frozen=True)
class ModelChoice:
    """A model by name, and why it was chosen."""

    name: str
    because: str


def choose_model(document: JobDocument, num_train: int, device: torch.device) -> ModelChoice:
    """Return the model of a job; `auto` decides by the kind of inputs, their number and the device."""
    if document.model.name != "auto":
        return ModelChoice(document.model.name, "named in the document")
    kind = document.dataset.kind
    if kind == "text":
        return ModelChoice("text", "the examples are texts")
    if kind == "features":
        return ModelChoice("mlp", "the examples are rows of numbers and categories")
    if device.type == "cuda" and num_train >= _MANY_IMAGES:
        return ModelChoice("resnet18", f"the examples are {num_train} images and there is a GPU")
    return ModelChoice("cnn", f"the examples are {num_train} images; a small network is enough for a first look")
