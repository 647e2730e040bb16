"""Doors: they translate a protocol into an invocation and back, and hold no policy."""
