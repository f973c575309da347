"""relay chooses: which delivery goes next, and what follows from an outcome.

A lane is the order of one session at one endpoint: one event of it is in flight at a time. Lanes live in the outbox; in
memory are only the requests in flight. A retry that waits is a row with a time: it holds no connection, no task and no memory.
"""
