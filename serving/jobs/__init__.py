"""Work that answers later: the durable queue, asynchronous invocations, transform jobs, notifications."""
