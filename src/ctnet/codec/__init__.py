"""Geometry between picture pixels, input pixels and heatmap cells, in both directions."""
