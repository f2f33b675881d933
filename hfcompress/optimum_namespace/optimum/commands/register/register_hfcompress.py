"""Found by `optimum-cli` in its namespace `optimum.commands.register`, which must never have an `__init__.py`."""

from hfcompress.optimum_cli import CompressCommand

REGISTER_COMMANDS = [CompressCommand]
