"""Meta-optimization for data curation: learn what each training example is worth."""

from sama_core.check import HypergradientCheck, check_hypergradient
from sama_core.curate import METHOD_NAMES, build_method, curate
from sama_core.datasets import DatasetExamples
from sama_core.decisions import Decisions
from sama_core.errors import SamaCoreError
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.sampler import WeightedSampler
from sama_core.selection import RULES, choose_rule, num_kept, order_rows
from sama_core.solve import Solution, solve
from sama_core.training import PlainTrainer, accuracy, fit, predict
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
    "RULES",
    "AbstractExamples",
    "AbstractMethod",
    "CurationOptions",
    "DatasetExamples",
    "Decisions",
    "HypergradientCheck",
    "Inputs",
    "PlainTrainer",
    "SamaCoreError",
    "Solution",
    "SolveCode",
    "SolveStatus",
    "StepReport",
    "TensorExamples",
    "WeightedSampler",
    "accuracy",
    "build_method",
    "check_hypergradient",
    "choose_rule",
    "curate",
    "fit",
    "num_kept",
    "order_rows",
    "predict",
    "solve",
]
