"""capture reads: one change stream on Rocket.Chat's database, in batches, with the position after each.

Takes a position and what to watch. Gives every majority-committed change after that position, once or, after a reconnect, again;
never one less. Never writes to MongoDB, and never decides what a change means.
"""
