"""How fast it is: each module runs alone, prints a table, and compares only what it measured in the same run."""
