"""HTTP in, JSON and pictures out: routes, schemas, uploads, problems."""
