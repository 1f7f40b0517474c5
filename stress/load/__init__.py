"""What the soak, the faults and the lifecycle share: a real service, its processes, and those who ask it."""
