"""`python -m services.cli`: the command, for child processes."""

from services.cli.main import main

main()
