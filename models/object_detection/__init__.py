"""Object Detection: which digits are in a scene, and where."""
