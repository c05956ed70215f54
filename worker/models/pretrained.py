"""Pretrained networks from a local folder, through transformers: safetensors alone, no code of the folder's own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from service.errors import ServiceError

_HINT = "Wanted a folder as save_pretrained writes it: config.json, model.safetensors and, for text, the tokenizer."


class PretrainedClassifier(nn.Module):
    """A transformers classifier as a network of one argument: a mapping of named tensors, or pixels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor] | Tensor) -> Tensor:
        """Return logits (B, C)."""
        named = {"pixel_values": inputs} if isinstance(inputs, Tensor) else inputs
        logits: Tensor = self.model(**named).logits
        return logits


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder that transformers would read anything but a configuration and safetensors from.

    Raises:
        ServiceError: `bad_model`; no configuration, no safetensors, or code of its own.
    """
    config = _read_json(folder / "config.json")
    if config is None:
        raise _refuse(name, "has no readable config.json")
    if "auto_map" in config:
        raise _refuse(name, "needs code of its own to be run, which is never done")
    if not any(folder.glob("*.safetensors")):
        raise _refuse(name, "holds no safetensors weights")


def load_tokenizer(folder: Path, name: str) -> Any:
    """Return the folder's tokenizer.

    Raises:
        ServiceError: `bad_model`; the folder has none that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as exc:
        raise _refuse(name, "holds no tokenizer that can be loaded") from exc


def build_sequence_classifier(folder: Path, num_classes: int, name: str) -> nn.Module:
    """Return a classifier of texts; a head that does not fit the classes is made anew.

    Raises:
        ServiceError: `bad_model`.
    """
    from transformers import AutoModelForSequenceClassification

    return _build(AutoModelForSequenceClassification, folder, num_classes, name)


def build_image_classifier(folder: Path, num_classes: int, name: str) -> nn.Module:
    """Return a classifier of images; a head that does not fit the classes is made anew.

    Raises:
        ServiceError: `bad_model`.
    """
    from transformers import AutoModelForImageClassification

    return _build(AutoModelForImageClassification, folder, num_classes, name)


@dataclass(frozen=True)
class ImageForm:
    """The images that a network was trained with: square, `side` pixels; mean and spread of each channel over 255."""

    num_channels: int
    side: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def read_image_form(folder: Path, name: str) -> ImageForm:
    """Return the form of images that a network was trained with.

    Raises:
        ServiceError: `bad_model`; the configuration does not say the image size.
    """
    config = _read_json(folder / "config.json") or {}
    processor = _read_json(folder / "preprocessor_config.json") or {}
    side = _find_side(processor.get("size")) or _find_side(config.get("image_size"))
    if side is None:
        raise _refuse(name, "does not say the image size, in preprocessor_config.json or config.json")
    num_channels = int(config.get("num_channels", 3))
    mean = np.array(processor.get("image_mean", [0.5] * num_channels), dtype=np.float64)
    std = np.array(processor.get("image_std", [0.5] * num_channels), dtype=np.float64)
    return ImageForm(num_channels, side, mean, std)


def _build(auto_class: Any, folder: Path, num_classes: int, name: str) -> nn.Module:
    check_folder(folder, name)
    try:
        # Eager attention: the fused kernels have no forward derivative.
        model = auto_class.from_pretrained(
            folder,
            num_labels=num_classes,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",
        )
    except (OSError, ValueError) as exc:
        raise _refuse(name, "cannot be loaded as a classifier") from exc
    return PretrainedClassifier(model.float())


def _find_side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if isinstance(size, list):
        size = size[0] if size else None
    return size if isinstance(size, int) and size > 0 else None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _refuse(name: str, what: str) -> ServiceError:
    return ServiceError("bad_model", f"model.name {name!r}: the folder {what}.", param="model.name", hint=_HINT)
