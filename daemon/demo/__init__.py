"""A show of the whole relay on one machine, and the parts it is made of.

Takes nothing but a `mongod` binary or the URI of a replica set; gives a real MongoDB (`mongod`), livechat traffic
written as Rocket.Chat 7 writes it (`plan`, `workspace`, `simulator`), a ledger of what must arrive (`ledger`) and a
receiver that misbehaves on purpose (`receiver`). `show` puts them around the real daemon, started as a process of its
own (`relay`), shows what happens (`screen`) and judges the result.

Guarantees that no process outlives the caller and that temporary folders and databases are removed. Never imports a
stage of the daemon: the demo sees what a customer sees.
"""
