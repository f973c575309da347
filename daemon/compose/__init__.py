"""compose matches: it folds changes into the state of rooms, visitors and agents, and turns transitions into events with
payloads.

Takes batches of changes. Gives what one commit of the outbox holds: new events, completions of earlier ones, folded state.
Folding and building are pure; `lookup` holds the only reads of MongoDB. Never sends anything, never writes to MongoDB.
"""
