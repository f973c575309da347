"""The relay as a process against real MongoDB and real HTTP, with faults that a seed chooses: `make faults`.

`plan` decides by a seed what happens, `traffic` writes, `inject` breaks things, `receiver` and `proxy` are what the relay talks
to, `relay` and `launcher` run it, `cluster` is MongoDB. `outbox` reads what it kept, `checker` (pure) judges, `story` tells what
went wrong, `run` is one seed from its beginning to its verdict.
"""
