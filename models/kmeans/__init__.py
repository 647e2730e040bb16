"""K-Means over a stream: many centres first, then as many as are wanted."""
