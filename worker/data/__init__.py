"""From tables to tensors: encodings fitted on training rows, kept in memory-mapped arrays, read by row number."""
