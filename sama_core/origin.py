"""What a checkpoint belongs to."""

from zlib import crc32

from sama_core.options import CurationOptions
from sama_core.types import JSON, AbstractExamples


def describe_origin(name: str, options: CurationOptions, examples: AbstractExamples, num_steps: int) -> dict[str, JSON]:
    """Return what a checkpoint must have in common with the state it is restored into.

    Example:
        >>> import torch
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))
        >>> describe_origin("aum", CurationOptions(), examples, 40)["num_examples"]
        2
    """
    return {
        "format": 1,
        "method": name,
        "options": options.to_json(),
        "num_examples": len(examples),
        "num_classes": examples.num_classes,
        "num_steps": num_steps,
        "labels_crc32": crc32(examples.labels.numpy().tobytes()),
    }
