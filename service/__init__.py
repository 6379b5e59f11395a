"""Serves bundles over HTTP: authentication, admission, batching, inference, metrics."""

import compression  # noqa: F401  # first: it keeps the libraries below from reporting to their makers

__version__ = "0.1.0"
