"""Builders of the objects that a session owns: pure, one file a kind."""
