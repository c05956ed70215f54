"""Baseline scores behind the same contract as the learned methods, one a file."""
