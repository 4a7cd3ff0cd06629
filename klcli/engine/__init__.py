"""Layers, losses, optimizers, schedules and the gradient check in NumPy alone. No files, no database, no terminal."""
