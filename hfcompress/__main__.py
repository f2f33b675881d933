"""`python -m hfcompress`."""

from hfcompress.cli import main

main()
