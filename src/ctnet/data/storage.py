"""Files that appear whole or not at all."""

from ctnet.files import write_file

__all__ = ["write_file"]
