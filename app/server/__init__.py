"""The processes that serve: supervisor, workers, limits of HTTP, load shedding. Only `torchlight serve` imports it."""
