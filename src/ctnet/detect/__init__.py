"""Inference: images in, detections out."""
