"""`livechat-relay config`: the configuration and the payloads, described."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from daemon.commands.tables import Decorator
from daemon.compose.payload.schemas import payload_schema
from daemon.compose.versions import OLDEST, parse
from daemon.config.example import example
from daemon.config.explain import explain
from daemon.config.file import load
from daemon.config.root import Config
from daemon.model import EventType, Profile

_WIDTH = 100


def add_commands(main: click.Group, config_option: Decorator) -> None:
    """Add the group to the command line."""

    @main.group(name="config")
    def config() -> None:
        """About the configuration."""

    @config.command(name="example")
    def config_example() -> None:
        """Print an annotated configuration to start from."""
        click.echo(example(), nl=False)

    @config.command(name="schema")
    @click.option(
        "--payload", type=click.Choice([event.value for event in EventType]), help="The schema of this payload instead."
    )
    @click.option("--profile", type=click.Choice([profile.value for profile in Profile]), default="guide", show_default=True)
    @click.option("--server-version", help="Rocket.Chat's version, such as 6.5.  [default: the newest known]")
    def config_schema(payload: str | None, profile: str, server_version: str | None) -> None:
        """Print the JSON Schema of the configuration, or of a payload."""
        if payload is None:
            schema = Config.model_json_schema()
        else:
            release = parse(server_version)
            if server_version is not None and (release is None or release < OLDEST):
                raise click.BadParameter("write a version from 6.0 on, such as 6.5", param_hint="--server-version")
            schema = payload_schema(EventType(payload), Profile(profile), server_version)
        click.echo(json.dumps(schema, indent=2, ensure_ascii=False))

    @config.command(name="explain")
    @config_option
    def config_explain(config_path: Path) -> None:
        """Say in words what this configuration means: what is sent when, how often it is tried, what happens after."""
        for number, chapter in enumerate(explain(load(config_path, read_secrets=False))):
            click.echo(f"{chr(10) if number else ''}{chapter.title}")
            for sentence in chapter.sentences:
                click.echo(
                    textwrap.fill(sentence, _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False)
                )
