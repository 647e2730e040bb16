"""Pages about the server, and what makes them."""
