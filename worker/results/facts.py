"""The facts for the manifest: what was curated, by what method with every hyperparameter, on what device."""

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch

from service.jobs.document import JobDocument, document_digest
from service.results.schemas import Summary
from worker.devices import describe_device
from worker.models.registry import count_parameters
from worker.phases.reading import CODE_VERSION, JobData
from worker.phases.scoring import Outcome

_SEMANTICS = "loss multiplier: multiply the loss of each example by it"
_NORMALISATION = "mean 1 over labelled rows"


def build_facts(
    document: JobDocument, data: JobData, outcome: Outcome, summary: Summary, device: torch.device
) -> dict[str, Any]:
    """Return what the manifest says beyond the selection and the outputs."""
    tables, facts = data.tables, outcome.decisions.facts
    fields = summary.model_dump(mode="json")
    return {
        "source": {
            "uri": document.dataset.uri,
            "revision": None,
            "rows": len(tables.train),
            "rows_digest": tables.train.rows_digest,
            "files": [
                {"name": _name_file(file.uri), "sha256": file.sha256, "bytes": file.num_bytes} for file in tables.files
            ],
        },
        "selection": fields["selection"],
        "weights": {
            "semantics": _SEMANTICS,
            "normalisation": _NORMALISATION,
            "averaged_over": facts.get("averaged_checkpoints", 1),
            "seeds": facts.get("seeds", [data.options.seed]),
        },
        "method": {
            "name": outcome.decisions.method,
            "task": document.task,
            "hyperparameters": data.options.to_json(),
            "facts": dict(facts),
            "calibrated": outcome.is_calibrated,
            "model": {
                "name": data.choice.name,
                "chosen_because": data.choice.because,
                "num_parameters": count_parameters(data.builder.build(data.options.seed)),
            },
            "code_version": CODE_VERSION,
            "torch_version": torch.__version__,
            "device": describe_device(device),
            "seed": data.options.seed,
        },
        "meta_set": _describe_meta(document, data),
        "leakage": tables.leakage.describe(),
        "labels": {"names": list(tables.label_map.values), "type": str(tables.label_map.type)},
        "evaluation": fields["evaluation"],
        "document_digest": document_digest(document),
    }


def _describe_meta(document: JobDocument, data: JobData) -> dict[str, Any]:
    meta, tables = document.meta, data.tables
    if meta is None:
        kind = "none"
    elif meta.self_:
        kind = "self"
    elif meta.fraction is not None:
        kind = "fraction"
    else:
        kind = "uri" if meta.uri is not None else "split"
    return {
        "kind": kind,
        "digest": None if tables.meta is None else tables.meta.rows_digest,
        "n": 0 if data.meta is None else len(data.meta),
        "overlap_with_train": tables.num_meta_in_train,
        "overlap_with_test": tables.num_meta_in_test,
    }


def _name_file(uri: str) -> str:
    return PurePosixPath(urlsplit(uri).path).name
