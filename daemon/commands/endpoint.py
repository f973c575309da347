"""`livechat-relay test-endpoint`: one request to an endpoint, shown, with what helps when it fails."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import textwrap
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import click

from daemon.clock import SystemClock
from daemon.commands.tables import Decorator
from daemon.config.endpoint import EndpointSection
from daemon.config.file import load
from daemon.config.types import redact_url
from daemon.model import Answered, Broken, Delivered, EventType, TimedOut, Unreachable
from daemon.relay.schedule import RetryPolicy, decide, describe
from daemon.send.guard import Guard
from daemon.send.trial import Trial, try_endpoint

_SHOWN = ("content-type", "content-length", "server", "location", "retry-after", "www-authenticate", "allow")
_LONGEST_BODY = 500

_AFTER_ERRORS = (
    ("DNSError", "the name in `url` cannot be resolved on this machine: check its spelling, and DNS (`getent hosts <name>`)"),
    (
        "mismatch",
        "the certificate is for another name: write the name that is in it into `url`; its verification cannot be switched off",
    ),
    (
        "CertificateError",
        (
            "the certificate is not accepted: expired, sent without those between it and its authority, or of an authority of "
            "your own, which `tls.ca_file` has to name"
        ),
    ),
    (
        "CERTIFICATE_REQUIRED",  # an alert of the receiver, as OpenSSL says it
        "the receiver asks for a certificate: give `tls.certificate_file` and `tls.key_file`",
    ),
    ("WRONG_VERSION_NUMBER", "that port does not speak TLS: begin `url` with http://, or name the port for https"),
    ("PROTOCOL_VERSION", "the receiver knows no TLS as new as 1.2"),
    ("SSL", "TLS fails: the receiver may want a certificate (`tls.certificate_file`); its log may tell"),
    ("Errno 111", "nothing listens there: is the receiver running, is the port right, does a firewall refuse?"),
    ("Errno 113", "there is no way to that address from here: check `url`, routes and firewalls"),
    ("Errno 101", "there is no way to that address from here: check `url`, routes and firewalls"),
    (
        "",
        (
            "the connection broke off before an answer: does HTTP listen there, with TLS or without as `url` says? With https "
            "the receiver may want a certificate (`tls.certificate_file`); its log may tell"
        ),
    ),
)
_AFTER_STATUS = {
    400: "the receiver did not like the request: its log or the answer may tell",
    401: "the receiver does not know who asks: compare `secret_token` and the other secrets of this endpoint with its own",
    403: "the receiver refuses: compare `secret_token` and the other secrets with its own; does it let this machine in?",
    404: "there is nothing at this path: compare the path of `url` with what the receiver documents",
    405: "the receiver takes no POST at this path: compare the path of `url` with what the receiver documents",
    411: "the receiver, or a proxy before it, cannot take the request; its log may tell",
    413: "the body is too large for the receiver; real ones, with transcripts, are larger still: raise its limit",
    415: "the receiver does not take application/json",
    422: "the receiver does not understand the payload: compare `livechat-relay config schema --payload ...`, and `profile`",
    429: "the receiver is asked too often; `retry.honour_retry_after` and a lower `concurrency` help",
    502: "a proxy answered: the receiver behind it is away",
    503: "the receiver, or a proxy before it, says that it is away",
    504: "a proxy answered: the receiver behind it does not answer in time",
}


def add_commands(main: click.Group, config_option: Decorator) -> None:
    """Add the command to the command line."""

    @main.command(name="test-endpoint")
    @click.argument("name")
    @config_option
    @click.option(
        "--type",
        "event_type",
        type=click.Choice([event.value for event in EventType]),
        default=EventType.SESSION.value,
        show_default=True,
        help="The type of the sample.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    def test_endpoint(name: str, config_path: Path, event_type: str, as_json: bool) -> None:
        """Send an endpoint one sample, as Rocket.Chat's button "Send Test" does, and show what comes back.

        The request is made as the relay makes it: token, signature, TLS and networks included. Nothing is kept, nothing is sent
        again. Ends with 0 when the answer counts as a success, else with 1.
        """
        config = load(config_path, read_secrets=False)
        endpoint = config.endpoints.get(name)
        if endpoint is None:
            raise click.BadParameter(f"no endpoint {name!r}; there are: {', '.join(config.endpoints)}", param_hint="NAME")
        guard = Guard(config.send.allow, config.send.deny)
        trial = asyncio.run(try_endpoint(name, endpoint, EventType(event_type), guard=guard, clock=SystemClock()))
        success = _counts(trial, endpoint)
        hint = None if success else _hint(trial)
        if as_json:
            click.echo(json.dumps(_as_json(trial, success=success, hint=hint), indent=2, ensure_ascii=False))
        else:
            _show(trial, endpoint, success=success, hint=hint)
        sys.exit(0 if success else 1)


def _counts(trial: Trial, endpoint: EndpointSection) -> bool:
    """Whether the relay would say that this event is delivered."""
    policy = RetryPolicy(any_2xx=endpoint.success == "2xx")
    verdict = decide(trial.outcome, trial.delivery, policy, now=trial.delivery.happened_at, last_success_at=None)
    return isinstance(verdict, Delivered)


def _show(trial: Trial, endpoint: EndpointSection, *, success: bool, hint: str | None) -> None:
    click.echo(f"POST {trial.url}")
    for header, value in trial.request.items():
        click.echo(f"  {header}: {_plain(value)}")
    outcome = trial.outcome
    size = len(trial.delivery.body.content)
    unsent = "" if trial.request else ", not sent"
    click.echo(f"  {size} bytes: a sample of {trial.delivery.type}{unsent}\n")
    if isinstance(outcome, Answered):
        click.echo(f"{outcome.status} {_phrase(outcome.status)} after {outcome.duration_s:.3f} s".replace("  ", " "))
        for header, value in _answer_headers(trial).items():
            click.echo(f"  {header}: {_plain(value)}")
        if outcome.answer:
            click.echo(textwrap.indent(_beginning(outcome.answer), "  "))
    elif isinstance(outcome, TimedOut):
        click.echo(describe(outcome))
    else:
        click.echo(f"no answer after {outcome.duration_s:.3f} s: {describe(outcome)}")
    click.echo()
    wanted = f"success: {endpoint.success}"
    click.echo(f"a success ({wanted})" if success else f"a failed try ({wanted})")
    if hint:
        click.echo(f"hint: {hint}")


def _as_json(trial: Trial, *, success: bool, hint: str | None) -> dict[str, Any]:
    outcome = trial.outcome
    answer = None
    if isinstance(outcome, Answered):
        answer = {"status": outcome.status, "headers": _answer_headers(trial), "body": _beginning(outcome.answer)}
    return {
        "endpoint": trial.delivery.endpoint,
        "request": {
            "method": "POST",
            "url": trial.url,
            "headers": dict(trial.request),
            "bytes": len(trial.delivery.body.content),
            "type": trial.delivery.type,
        },
        "answer": answer,
        "outcome": describe(outcome),
        "duration_s": round(outcome.duration_s, 4),
        "success": success,
        "hint": hint,
    }


def _hint(trial: Trial) -> str:
    match trial.outcome:
        case Answered(status):
            return _after_status(status, trial)
        case TimedOut():
            return (
                "nothing came within `timeout`: a firewall may drop what is sent, or the receiver is slow; it should answer first"
            )
        case Broken():
            return "put the network of that address into `send.allow` if requests shall go there"
        case Unreachable(error):
            return next(hint for mark, hint in _AFTER_ERRORS if mark in error)


def _after_status(status: int, trial: Trial) -> str:
    location = {header.lower(): value for header, value in trial.answer.items()}.get("location")
    if 300 <= status < 400:
        target = redact_url(urljoin(trial.url, location)) if location else "where it leads"
        return f"redirects are not followed: set `url` to {_plain(target)}"
    if 200 <= status < 300:
        return "the receiver took it, but only 200 counts: let it answer 200, or set `success: 2xx`"
    return _AFTER_STATUS.get(status, "the receiver's log may tell why")


def _answer_headers(trial: Trial) -> dict[str, str]:
    """Those that help, without what may be a secret."""
    shown = {header: value for header, value in trial.answer.items() if header.lower() in _SHOWN}
    return {header: redact_url(value) if header.lower() == "location" else value for header, value in shown.items()}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _beginning(answer: bytes) -> str:
    text = _plain(answer.decode("utf-8", "replace")).strip()
    return text if len(text) <= _LONGEST_BODY else f"{text[:_LONGEST_BODY]}..."


def _plain(text: str) -> str:
    """Nothing in it moves the cursor or changes colours of a terminal."""
    return re.sub(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]", "�", text)
