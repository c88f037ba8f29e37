"""Scoring detectors: running them over a data set, COCO metrics, reports."""
