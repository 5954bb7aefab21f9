"""`python -m jobs.cli`: the same as the script `darkroom`."""

from . import main

main()
