"""NumPy only: layers, losses, optimizers. No files, no database, no terminal."""
