"""Benchmarks: what we reach beside what the parts below us reach, in one run on one machine."""
