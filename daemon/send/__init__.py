"""send posts: one HTTP request to one endpoint, bounded in time and size.

Takes a delivery and its bytes, gives an outcome. A failing endpoint is an outcome, not an exception. Never decides what follows.
"""
