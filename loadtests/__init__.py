"""Load tests of a running service: user mixes, load shapes, thresholds with an exit code. See README.md."""
