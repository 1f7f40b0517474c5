"""The process that serves: supervisor, workers, limits of HTTP and load shedding. Nothing outside imports it."""
