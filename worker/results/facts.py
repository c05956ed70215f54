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
from worker.phases.tracing import limit_tracing
from worker.phases.training import count_examples

_SEMANTICS = "loss multiplier: multiply the loss of each example by it"
_NORMALISATION = "mean 1 over labelled rows"
_NETWORK = "the one after the last training step, of this seed: a snapshot, not a sum over the training"
_INFLUENCE = "<grad l_j, D grad l_i>: i the row, j the trusted example, D the optimizer's answer to a small gradient"
_INFLUENCE_UNIT = (
    "nats by which an optimizer step on row i lowers the loss of j, to first order; negative: it raises it"
)


def build_facts(
    document: JobDocument, data: JobData, outcome: Outcome, summary: Summary, device: torch.device
) -> dict[str, Any]:
    """Return what the manifest says beyond the selection and the outputs."""
    tables, facts = data.tables, outcome.decisions.facts
    fields = summary.model_dump(mode="json")
    num_params = count_parameters(data.builder.build(data.options.seed))
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
                "num_parameters": num_params,
            },
            "code_version": CODE_VERSION,
            "torch_version": torch.__version__,
            "device": describe_device(device),
            "seed": data.options.seed,
        },
        "meta_set": _describe_meta(document, data),
        "influences": _describe_influences(data, outcome, num_params),
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


def _describe_influences(data: JobData, outcome: Outcome, num_params: int) -> dict[str, Any] | None:
    """Return what was traced, and what the numbers mean; None where nothing was."""
    found = outcome.influences
    if found is None or data.meta is None:
        return None
    _, num_trusted = limit_tracing(num_params, count_examples(data.options, len(data.train)), len(data.meta))
    return {
        "network": _NETWORK,
        "seed": data.options.seed + data.options.seeds - 1,
        "formula": _INFLUENCE,
        "unit": _INFLUENCE_UNIT,
        "num_rows": len(found.rows),
        "num_trusted": num_trusted,
        "top_k": found.trusted.shape[1],
    }


def _name_file(uri: str) -> str:
    return PurePosixPath(urlsplit(uri).path).name
