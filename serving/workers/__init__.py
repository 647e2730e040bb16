"""Processes that hold models."""
