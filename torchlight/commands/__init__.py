"""One module a command, with the options and the terminal output that they share. Knows nothing of HTTP."""
