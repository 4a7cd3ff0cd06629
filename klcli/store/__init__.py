"""The only place that knows SQL and the checkpoint format."""
