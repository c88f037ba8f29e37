"""A card that is not there, for tests; see README.md."""

from emulation.backend import install

__all__ = ["install"]
