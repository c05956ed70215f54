"""The evaluation of a finished job with every part in it, as the pages show it."""

from typing import Any

import numpy as np

from worker.evaluation.detection import summarise_detection

ACCURACIES = {
    "full": [0.866, 0.874, 0.882],
    "curated": [0.944, 0.952, 0.948],
    "random": [0.842, 0.856, 0.838],
    "loss": [0.921, 0.93, 0.925],
    "meta": [0.78, 0.77, 0.79],
    "full-and-meta": [0.9, 0.91, 0.905],
    "curated-and-meta": [0.951, 0.957, 0.955],
}
CURVE = {0.3: (0.9, 0.82), 0.5: (0.93, 0.85), 0.7: (0.945, 0.86)}


def make_evaluation(num_rows: int, num_kept: int) -> dict[str, Any]:
    """Return an evaluation with all arms, a prune curve, baselines and an audit."""
    arms = [
        _make_arm(arm, num_rows if arm.startswith("full") else num_kept, found) for arm, found in ACCURACIES.items()
    ]
    return {
        "num_test": 500,
        "seeds": [0, 1, 2],
        "arms": arms,
        "comparisons": [
            _compare("full", 0.074),
            _compare("random", 0.103),
            _compare("loss", 0.004),
            _compare("meta", 0.168),
            _compare("full-and-meta", 0.043),
            _compare("full-and-meta", 0.049, "curated-and-meta"),
            _compare("meta", -0.03, "curated-and-meta"),
        ],
        "interval_method": "95%, Student's t over the seeds, paired",
        "bootstrap_method": "95% percentile interval of a paired bootstrap",
        "verdict": "Better: the curated rows beat all rows by 7.4 points and random rows by 10.3 points.",
        "curve": [
            {
                "keep_fraction": share,
                "num_rows": round(share * num_rows),
                "curated": _make_arm("curated", round(share * num_rows), [curated - 0.004, curated, curated + 0.004]),
                "random": _make_arm("random", round(share * num_rows), [random - 0.01, random, random + 0.01]),
                "comparison": _compare("random", curated - random),
            }
            for share, (curated, random) in CURVE.items()
        ],
        "baselines": [
            _make_baseline("loss", "mean loss of the given label over the last half of the epochs", 0.61),
            _make_baseline("aum", "margin of the given label, averaged over all epochs", 0.74),
        ],
        "audit": _make_audit(num_rows),
    }


def _make_arm(arm: str, num_rows: int, accuracy: list[float]) -> dict[str, Any]:
    mean = float(np.mean(accuracy))
    return {
        "arm": arm,
        "trained_on": f"{num_rows} rows of the arm {arm}",
        "num_rows": num_rows,
        "num_steps": 480,
        "accuracy": accuracy,
        "mean": mean,
        "interval": (mean - 0.012, mean + 0.012),
        "bootstrap": (mean - 0.01, mean + 0.01),
    }


def _compare(arm: str, difference: float, subject: str = "curated") -> dict[str, Any]:
    interval = (difference - 0.014, difference + 0.014)
    return {"subject": subject, "arm": arm, "difference": difference, "interval": interval, "bootstrap": interval}


def _make_baseline(name: str, description: str, overlap: float) -> dict[str, Any]:
    return {
        "name": name, "description": description, "num_compared": 40, "overlap": overlap, "rank_correlation": 0.5,
    }  # fmt: skip


def _make_audit(num_rows: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    is_planted = np.arange(num_rows) < num_rows // 10
    found = []
    for name, spread in (("sama", 0.15), ("loss", 0.3), ("aum", 0.25)):
        noise = np.clip(0.75 * is_planted + 0.1 + generator.normal(0, spread, num_rows), 0, 1)
        found.append(summarise_detection(name, noise, is_planted).model_dump(mode="json"))
    return {
        "kind": "uniform",
        "rate": 0.1,
        "num_judged": num_rows,
        "num_planted": int(is_planted.sum()),
        "detections": found,
        "reading": "Every figure is a lower bound.",
    }
