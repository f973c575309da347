"""receive is a receiver to develop against: it shows each request, says what is wrong with it, and fails when told to.

The relay itself never uses it.
"""
