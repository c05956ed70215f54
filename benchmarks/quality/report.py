"""The section's tables."""

from collections.abc import Callable, Collection, Sequence

from benchmarks.quality.methods import ABLATIONS, BASELINES, EVIDENCE_ABLATIONS, FEATURE_ABLATIONS, OURS
from benchmarks.quality.prepared import Mode
from benchmarks.quality.pruning import REMOVED
from benchmarks.quality.sets import SETS
from benchmarks.quality.summary import MISSING, Spread, Summary, spread_of
from benchmarks.quality.targets import judge_targets
from benchmarks.tables import format_table

_METHOD = """\
Every method trains the same network with the same options for the same number of epochs, the product's defaults for
that kind of network; nothing is set per data set but how much of it a run on a CPU can afford: rows, epochs, pixels. A
seed draws the rows, the trusted rows, the network's first weights and the order of batches, the same for all methods.
Figures: mean ± standard deviation over the seeds.

Detection and correction are taken over the curated rows that are not trusted; a label is wrong where it differs from
the true one. Trusted rows keep their given labels among the curated rows, or are a split of their own where the data
have one; the methods know both labels ("audited"). In the table "separate" they know the trusted label alone.

Trainings have equal numbers of steps and start from random numbers other than the curation's. "given" trains on the
labels as they are. Every other arm knows the true labels of the trusted rows and trains on these rows too, so that what
beats "given+meta" beats it by what was decided about the other rows. "kept" drops as many rows as there are wrong
labels, by the method's own noise score; "suggested" takes the labels of the product's default rule of correction;
"weights" and "relabelled" use the learned weights; "soft" trains on the probability of each class, every row alike, for
the methods to which trusted rows taught it.

Time is that of the processor, as a multiple of plain training of the same length, measured before and after in the same
process; memory is the peak of the process as a multiple of that during plain training."""

_ABLATION = """\
`sama` with one thing left out at a time, on the sets and in the way of the tables above; mean over the seeds and, in
brackets, the difference to ours. "Learned weight" is what the meta loss alone made of an example, before the detector's
probability is multiplied in. Votes are left out only where there are any: elsewhere it would change nothing."""

_FIGURES = (
    ("auroc", "Detection: AUROC"),
    ("average_precision", "Detection: average precision"),
    ("precision", "Detection: precision at the true number of wrong labels"),
    ("brier", "Calibration of noise_score: Brier score (lower is better)"),
)
_CONTROLS = ("given", "meta", "given+meta", "gold")
_ARMS = ("kept", "suggested", "weights", "relabelled", "soft")


def format_report(summary: Summary, origins: Sequence[str]) -> str:
    """Return every table there are figures for."""
    seeds = ", ".join(map(str, summary.list_seeds()))
    runs = f"Seeds: {seeds}; {summary.num_done} units of work, each a method or the controls on one set with one seed."
    measured = [*(f"Measured on: {origin}" for origin in origins), runs]
    failed = _section("What failed", "\n".join(f"- {it['key']}: {it['error']}" for it in summary.errors))
    if is_ablation(summary):
        return "\n\n".join(part for part in [_ABLATION, *measured, *_list_ablations(summary), failed] if part)
    parts = [
        _section("Sets", _format_sets(summary)),
        _section("Targets", _format_targets(summary)),
        *(_section(title, _format_figure(summary, figure)) for figure, title in _FIGURES),
        _section("Detection where only the trusted labels are known (separate): AUROC", _format_separate(summary)),
        _section(
            "Correction by the default rule: wrong labels set right / right labels broken", _format_pairs(summary)
        ),
        _section(
            "Correction of as many labels as are wrong, the most doubtful ones: the same",
            _format_pairs(summary, "correction_at_true_number"),
        ),
        _section("Training: test accuracy", _format_training(summary)),
        _section("Pruning of true labels: test accuracy by share removed", _format_pruning(summary)),
        _section("Time, as a multiple of plain training", _format_cost(summary, "time_ratio")),
        _section("Peak memory, as a multiple of plain training's", _format_cost(summary, "memory_ratio")),
        _section("`sama` trained for as many epochs as the product would", _format_own_cost(summary)),
        failed,
    ]
    return "\n\n".join([_METHOD, *measured, *(part for part in parts if part)])


def is_ablation(summary: Summary) -> bool:
    """Return whether the run compared ours with less of it, and nothing else."""
    return any(name in ABLATIONS for name in summary.list_methods())


def _list_ablations(summary: Summary) -> list[str]:
    return [
        _section(
            "What the detector sees: AUROC of noise_score, one kind of evidence left out at a time",
            _format_ablation(summary, EVIDENCE_ABLATIONS, "detection"),
        ),
        _section(
            "What the weight network sees: AUROC of the learned weight (low = wrong), features left out in turn",
            _format_ablation(summary, FEATURE_ABLATIONS, "learned_weight"),
        ),
    ]


def _section(title: str, body: str) -> str:
    return f"### {title}\n\n{body}" if body else ""


def _order_methods(names: Sequence[str]) -> list[str]:
    known = [OURS, *BASELINES]
    return [name for name in known if name in names]


def _order_sets(names: Sequence[str]) -> list[str]:
    return sorted(names, key=list(SETS).index)


def _show(found: Spread | None, digits: int = 3) -> str:
    return MISSING if found is None else found.format(digits)


def _tabulate(first: str, rows: Sequence[str], sets: Sequence[str], cell: Callable[[str, str], str]) -> str:
    """Return a table of rows by sets, without rows that hold nothing."""
    cells = [[row, *(cell(row, set_name) for set_name in sets)] for row in rows]
    filled = [row for row in cells if any(value != MISSING for value in row[1:])]
    return format_table([first, *sets], filled) if filled else ""


def _format_sets(summary: Summary) -> str:
    rows = []
    for set_name in _order_sets([*summary.list_sets(), *summary.list_sets("whole")]):
        spec = SETS[set_name]
        kind = "whole" if spec.is_pruned else "curation"
        method = "" if spec.is_pruned else next(iter(summary.list_methods()), OURS)
        records = summary.find(kind, set_name, method)
        if not records:
            continue
        counts, training = records[0]["rows"], records[0]["training"]
        wrong = spread_of([record["rows"]["wrong"] / record["rows"]["train"] for record in records])
        steps = f"{training['epochs']} x {training['batch_size']} ({training['steps']})"
        shares = [str(counts[name]) for name in ("train", "trusted", "test")]
        rows.append([set_name, spec.title, spec.noise, *shares, _show(wrong), spec.kind, steps])
    header = ["set", "", "noise", "curated", "trusted", "test", "share wrong", "inputs", "epochs x batch (steps)"]
    return format_table(header, rows) if rows else ""


def _format_targets(summary: Summary) -> str:
    verdicts = [verdict for verdict in judge_targets(summary) if verdict.is_met is not None]
    if not verdicts:
        return ""
    return format_table(
        ["target", "where", "figures", ""], [[it.target, it.where, it.figures, it.word] for it in verdicts]
    )


def _format_figure(summary: Summary, figure: str, mode: Mode = "audited") -> str:
    sets = _order_sets(summary.list_sets(mode=mode))
    methods = _order_methods(summary.list_methods(mode=mode))

    def cell(method: str, set_name: str) -> str:
        return _show(summary.spread("curation", set_name, method, "detection", figure, mode=mode))

    return _tabulate("method", methods, sets, cell)


def _format_separate(summary: Summary) -> str:
    return _format_figure(summary, "auroc", "separate") if summary.list_sets(mode="separate") else ""


def _format_pairs(summary: Summary, name: str = "correction") -> str:
    def cell(method: str, set_name: str) -> str:
        found = [summary.mean("curation", set_name, method, name, figure) for figure in ("mended", "broken")]
        return MISSING if found[0] is None or found[1] is None else f"{found[0]:.2f} / {found[1]:.3f}"

    return _tabulate("method", _order_methods(summary.list_methods()), _order_sets(summary.list_sets()), cell)


def _format_training(summary: Summary) -> str:
    methods = _order_methods(summary.list_methods())
    rows = [f"control: {name}" for name in _CONTROLS]
    rows += [f"{method}: {arm}" for method in methods for arm in _ARMS]

    def cell(row: str, set_name: str) -> str:
        name, _, arm = row.rpartition(": ")
        if name == "control":
            return _show(summary.spread("controls", set_name, "", "accuracy", arm))
        return _show(summary.spread("curation", set_name, name, "accuracy", arm))

    return _tabulate("trained on", rows, _order_sets(summary.list_sets("controls")), cell)


def _format_pruning(summary: Summary) -> str:
    rows = []
    for set_name in summary.list_sets("pruning"):
        whole = summary.spread("whole", set_name, "", "accuracy", "whole")
        rows.append([f"{set_name}: nothing removed", _show(whole), *[""] * (len(REMOVED) - 1)])
        for method in _order_methods(summary.list_methods("pruning")):
            records = summary.find("pruning", set_name, method)
            for rule in records[0]["pruning"] if records else ():
                path = ("pruning", set_name, method, "pruning", rule)
                cells = [_show(summary.spread(*path, str(removed))) for removed in REMOVED]
                rows.append([method if rule == "top" and method != OURS else f"{method}, {rule}", *cells])
    return format_table(["", *(f"{removed:.0%}" for removed in REMOVED)], rows) if rows else ""


def _format_cost(summary: Summary, figure: str) -> str:
    def cell(method: str, set_name: str) -> str:
        return _show(summary.spread("curation", set_name, method, "cost", figure), 2)

    return _tabulate("method", _order_methods(summary.list_methods()), _order_sets(summary.list_sets()), cell)


def _format_own_cost(summary: Summary) -> str:
    """Return time and memory of the sets that the tables above train for fewer epochs than the product would."""
    rows = []
    for set_name in _order_sets(summary.list_sets("cost")):
        training = summary.find("cost", set_name, OURS)[0]["training"]
        steps = f"{training['epochs']} x {training['batch_size']} ({training['steps']})"
        ratios = [summary.spread("cost", set_name, OURS, "cost", name) for name in ("time_ratio", "memory_ratio")]
        rows.append([set_name, steps, *(_show(ratio, 2) for ratio in ratios)])
    return format_table(["set", "epochs x batch (steps)", "time", "peak memory"], rows) if rows else ""


def _format_ablation(summary: Summary, ablations: Collection[str], figure: str) -> str:
    """Return the AUROC of a figure's with one thing left out at a time, and the difference to ours."""
    present = [name for name in ablations if name in summary.list_methods()]
    if not present:
        return ""

    def cell(method: str, set_name: str) -> str:
        found = summary.mean("curation", set_name, method, figure, "auroc")
        ours = summary.mean("curation", set_name, OURS, figure, "auroc")
        if found is None:
            return MISSING
        return f"{found:.3f}" + (f" ({found - ours:+.3f})" if ours is not None and method != OURS else "")

    return _tabulate("method", [OURS, *present], _order_sets(summary.list_sets()), cell)
