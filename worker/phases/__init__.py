"""The phases of an attempt, one a file, and their sequence."""
