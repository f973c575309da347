"""check looks: at everything that can be known before running, or beside a relay that runs.

Takes a configuration; gives findings, each with what to do about it. One check that fails never hides another. Reads MongoDB
and the outbox, opens connections to endpoints; never sends a request, never writes.
"""
