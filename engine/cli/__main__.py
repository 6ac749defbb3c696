"""`python -m ulpgrad.cli`: the command where its script is not on the PATH."""

from ulpgrad.cli import main

main()
