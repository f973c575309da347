"""outbox keeps: the only truth about what is owed, in one SQLite file.

Takes commits of events, folded state and position; gives deliveries whose attempt is already counted; records what came of
them. An event id is kept once per endpoint. Everything else in the process is a hint that may be lost. Never sends, never
decides.
"""
