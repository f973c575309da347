"""Payloads: a context and its messages give a webhook's content, member by member. Pure.

Each shape is a table of members, from which both the payload and its JSON Schema are made. Takes folded documents, gives
plain values with dates, file links and the place of a CRM's answer, which `json_text` writes. Never reads anything, never
decides what is sent.
"""
