"""Annotations, images and batches: reading, checking, augmenting, loading."""
