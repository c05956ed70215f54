"""`python -m service.cli`: the command `sama`."""

from service.cli.main import main

main()
