"""Geometry between image pixels, input pixels and heatmap cells, in both directions."""
