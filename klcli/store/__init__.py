"""The database and the checkpoints. SQL and the checkpoint format are used only here."""
