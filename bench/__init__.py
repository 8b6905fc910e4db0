"""Measurements: `make bench` and `make bench-redis`."""
