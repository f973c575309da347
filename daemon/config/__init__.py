"""The configuration: one frozen section per stage, the text under each key is its description. Secrets never print.

`root` has the whole and its sections, `endpoint` the section of a receiver, `types` what they are made of; `file` reads and
explains faults, `example` writes the annotated file. Every key can be given as an environment variable: `mongodb.uri` is
`LIVECHAT_RELAY_MONGODB__URI`.
"""
