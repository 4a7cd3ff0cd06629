"""Stored records to tables and pictures."""
