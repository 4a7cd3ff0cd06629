"""Procedures over the engine and the data: nothing stored, nothing printed."""
