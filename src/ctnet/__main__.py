"""`python -m ctnet` is `ctnet`."""

from ctnet.cli import main

main()
