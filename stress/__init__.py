"""Programs that try to break the service: hostile input, faults, restarts, overload, hours of load."""
