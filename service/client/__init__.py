"""The Python client: the HTTP contract as typed methods, used by the command line and by anyone's own code."""
