"""Registration with `optimum-cli`, in its namespace `optimum.commands.register`: no `__init__.py` may be added here."""

from hfcompress.optimum_cli import CompressCommand

REGISTER_COMMANDS = [CompressCommand]
