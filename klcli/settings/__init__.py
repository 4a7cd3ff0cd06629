"""Every setting once: its type, default, bounds, choices, option, help, label and role."""
