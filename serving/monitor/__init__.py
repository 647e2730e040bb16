"""What happened, read well: captured calls, their labels, and what follows from them.

Everything here works on what was written down (``watch/capture*.py``) and runs in a process of its own or in a command;
no server process imports it for its heavy libraries.
"""
