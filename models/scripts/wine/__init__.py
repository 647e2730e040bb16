"""Nearest class centre in plain NumPy."""
