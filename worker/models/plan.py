"""A model by name, made ready for the data: how its inputs are encoded, how its network is built."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from service.settings import Settings
from service.storage.roots import resolve_folder
from worker.data.examples import AbstractEncoder, Part
from worker.data.images import ImageEncoder, PixelFormat
from worker.data.tabular import TabularEncoder
from worker.data.text import TextEncoder
from worker.data.tokens import TokenEncoder
from worker.models.pretrained import (
    build_image_classifier,
    build_sequence_classifier,
    check_folder,
    load_tokenizer,
    read_image_form,
)
from worker.models.registry import NetworkBuilder, create_builder

_PRETRAINED = "hf:"
_LARGE_SIDE, _SMALL_SIDE = 224, 64


@dataclass(frozen=True)
class ModelPlan:
    """The encoding a model reads, fitted on the training rows, and the way to its network."""

    encoder: AbstractEncoder
    create_builder: Callable[[int], NetworkBuilder]


def plan_model(name: str, kind: str, part: Part, settings: Settings) -> ModelPlan:
    """Return the plan of a model for inputs of this kind (text, image or features).

    Raises:
        ServiceError: `bad_model`, `path_not_allowed` and the like, for the folder of a pretrained model.
    """
    if name.startswith(_PRETRAINED):
        folder = resolve_folder(name.removeprefix(_PRETRAINED), settings.data_roots, param="model.name")
        check_folder(folder, name)
        if kind == "text":
            encoder: AbstractEncoder = TokenEncoder(load_tokenizer(folder, name))
            return ModelPlan(encoder, _pretrained(build_sequence_classifier, folder, name))
        return ModelPlan(_plan_pixels(folder, name, settings), _pretrained(build_image_classifier, folder, name))
    if kind == "text":
        encoder = TextEncoder.fit(part)
    elif kind == "image":
        largest = _LARGE_SIDE if name == "resnet18" else _SMALL_SIDE
        encoder = ImageEncoder.fit(part, settings.max_image_pixels, largest)
    else:
        encoder = TabularEncoder.fit(part)
    return ModelPlan(encoder, lambda num_classes: create_builder(name, encoder.shape, num_classes))


def _pretrained(
    build: Callable[[Path, int, str], nn.Module], folder: Path, name: str
) -> Callable[[int], NetworkBuilder]:
    return lambda num_classes: NetworkBuilder(lambda: build(folder, num_classes, name))


def _plan_pixels(folder: Path, name: str, settings: Settings) -> ImageEncoder:
    form = read_image_form(folder, name)
    encoder = ImageEncoder(
        PixelFormat(form.num_channels, form.side, form.side), settings.max_image_pixels, kind="pixels"
    )
    encoder.normalise_by(form.mean, form.std)
    return encoder
