"""Annotations, pictures and batches: reading, checking, augmenting, loading."""
