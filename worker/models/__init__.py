"""Networks by name, their training defaults, and the choice that `auto` makes."""
