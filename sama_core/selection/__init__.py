"""From scores to a nested order of rows, one rule a file, and the choice among the rules."""

from sama_core.selection.choice import choose_noise_cut, choose_rule, num_kept
from sama_core.selection.order import NOISE_CUT, RULES, RuleName, find_cut_off, order_rows

__all__ = [
    "NOISE_CUT",
    "RULES",
    "RuleName",
    "choose_noise_cut",
    "choose_rule",
    "find_cut_off",
    "num_kept",
    "order_rows",
]
