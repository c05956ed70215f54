"""Meta-optimization for data curation: learn what each training example is worth."""

from sama_core.curate import METHOD_NAMES, build_method
from sama_core.decisions import Decisions
from sama_core.errors import SamaCoreError
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.types import (
    JSON,
    AbstractExamples,
    Inputs,
    SolveCode,
    SolveStatus,
    StepReport,
    TensorExamples,
)

__all__ = [
    "JSON",
    "METHOD_NAMES",
    "AbstractExamples",
    "AbstractMethod",
    "CurationOptions",
    "Decisions",
    "Inputs",
    "SamaCoreError",
    "SolveCode",
    "SolveStatus",
    "StepReport",
    "TensorExamples",
    "build_method",
]
