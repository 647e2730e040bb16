"""One framework per file."""
