"""Detectors: backbones, necks, heads, and how they are put together."""
