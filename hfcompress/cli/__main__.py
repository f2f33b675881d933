"""`python -m hfcompress.cli`."""

from hfcompress.cli import main

main()
