"""`python -m jobs.cli`: the same as the command `darkroom`."""

from . import main

main()
