"""A convolution net as a PyTorch state dict."""
