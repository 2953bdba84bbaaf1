"""`python -m eccos_core.cli`: the console script, where it is not on the path."""

from eccos_core.cli import main

main()
