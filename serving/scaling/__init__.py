"""Deciding on capacity: pure policies over measured values, and the simulator that runs the same ones."""
