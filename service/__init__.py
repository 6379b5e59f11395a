"""Serves bundles over HTTP: authentication, admission, batching, inference, metrics."""
