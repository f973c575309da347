"""`python -m daemon` is the same as `livechat-relay`."""

from daemon.cli import main

main(prog_name="livechat-relay")
