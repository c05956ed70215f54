"""The command line `sama`. Kept free of imports: `sama --help` must answer at once."""
