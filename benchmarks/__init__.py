"""How fast it is, and what it stands: each module runs alone, prints a table, and compares only what it measured."""
