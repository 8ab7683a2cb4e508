"""Benchmarks: what we reach beside what the parts below us and our peers reach, in one run on one machine."""
