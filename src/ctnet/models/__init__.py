"""Detectors: trunks, necks, heads, and how they are put together."""
