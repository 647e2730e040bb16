"""The console: pages at ``/`` for people who would rather look. HTML made here, one stylesheet, one small script."""
