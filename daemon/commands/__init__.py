"""The command line's commands, one module per group: arguments in, tables or JSON lines out. What they do is in `ops`."""
