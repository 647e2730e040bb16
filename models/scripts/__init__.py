"""The ``inference.py`` files of the script models, copied as they are into their artifacts."""
