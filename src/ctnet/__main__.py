"""`python -m ctnet` is `ctnet`."""

from ctnet.cli.app import main

main()
