"""The format of published reports: its keys, and the mistakes in a file, each with its line."""
