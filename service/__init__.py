"""Serves bundles over HTTP: authentication, admission, batching, inference, metrics."""

__version__ = "0.1.0"
