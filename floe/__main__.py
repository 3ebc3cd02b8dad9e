"""`python -m floe`: the console script by another name, for processes that Floe starts itself."""

from floe.cli import main

main()
