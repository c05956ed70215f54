"""Results: per-example decisions, their summary, and what is exported from them."""
