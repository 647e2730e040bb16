"""Semantic Segmentation: which pixels belong to a coin."""
