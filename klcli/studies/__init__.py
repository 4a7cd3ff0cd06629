"""Plans of many runs, the workers that train them, and statistics over seeds."""
