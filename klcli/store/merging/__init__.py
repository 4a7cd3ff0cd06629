"""Copy the runs of other databases into one."""
