"""log writes: dotted event names with fields, one line each, on standard output.

Takes what every stage has to say, gives JSON, ECS or text for people. Guarantees that no configured secret stands in a line,
that values of variables and texts of foreign exceptions appear at `debug` only, and that what repeats is counted instead of
written each time. Never raises into whoever logs.
"""

from daemon.log.setup import configure, get_logger, hide, say_repeated

__all__ = ["configure", "get_logger", "hide", "say_repeated"]
