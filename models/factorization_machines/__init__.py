"""Factorization Machines: pairs of features that meet, through a few numbers a feature."""
