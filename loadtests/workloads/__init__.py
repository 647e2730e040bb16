"""What the bench measures, a file for each kind of work. A workload is a function from ``Bench`` to figures."""
