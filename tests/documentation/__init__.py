"""Generators of pages in docs/ that must not drift from the code."""
