"""SageMaker's built-in algorithms: each reads and answers in its own documented wire format (``behaviour/10``)."""
