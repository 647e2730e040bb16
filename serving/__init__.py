"""An open, self-hosted inference server that speaks SageMaker."""

__version__ = "0.1.0"
