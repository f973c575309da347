"""The effective configuration in words: what is read, what is sent when, and what happens when it does not arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

from daemon.config.endpoint import EndpointSection, RetrySection
from daemon.config.root import Config
from daemon.config.types import redact_url
from daemon.model import TOKEN_HEADER, EventType, Profile

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_LONGEST_RETRY_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Chapter:
    """Sentences about one thing."""

    title: str
    sentences: tuple[str, ...]


def explain(config: Config) -> list[Chapter]:
    """The whole configuration. Names files and keys of secrets, never what is in them."""
    return [
        Chapter("Reading", tuple(_reading(config))),
        Chapter("Outbox", tuple(_outbox(config))),
        *(Chapter(f"Endpoint {name}", tuple(_endpoint(endpoint))) for name, endpoint in config.endpoints.items()),
        Chapter("Where requests may go", tuple(_networks(config))),
        Chapter("This machine", tuple(_here(config))),
    ]


def _reading(config: Config) -> Iterator[str]:
    uri = "mongodb.uri" if config.mongodb.uri_file is None else f"the file {config.mongodb.uri_file}"
    yield f"Changes are read from the database {config.mongodb.database}, on the MongoDB that {uri} names."
    start = config.capture.start
    since = f"at {start.isoformat()}" if isinstance(start, datetime) else "with what happens from then on"
    yield f"The very first start begins {since}; every later one where the relay stopped."
    match config.capture.on_lost_position:
        case "fail":
            then = "ends with an error: nothing is left out unseen"
        case "heal":
            then = (
                "makes what is missing from stored rooms and messages, then goes on from now; what leaves no trace there is not"
                " delivered, such as LivechatSessionQueued"
            )
        case "restart":
            then = "goes on from now. Beware: what happened in between is not delivered; the log says how much time that is"
        case other:
            assert_never(other)
    yield (
        f"If MongoDB's oplog no longer reaches back to where the relay stopped, the relay {then} "
        f"(capture.on_lost_position: {config.capture.on_lost_position})."
    )
    yield f"An event that a later change completes waits for it {in_words(config.compose.settle)} at most."
    if config.compose.server_version != "auto":
        yield f"Payloads are those of Rocket.Chat {config.compose.server_version}."
    if config.compose.imitate:
        yield f"These defects of Rocket.Chat are reproduced: {_list(config.compose.imitate)}."


def _outbox(config: Config) -> Iterator[str]:
    outbox = config.outbox
    size = outbox.max_size.human_readable(decimal=True).replace(".0", "")
    yield f"What is owed is in {outbox.path.absolute()}. When it has grown to {size}, reading pauses until deliveries make room."
    yield (
        f"Payloads and attempts are kept for {in_words(outbox.keep_delivered)} when an event was delivered, for "
        f"{in_words(outbox.keep_dead)} when it could not be. An event that comes again within {in_words(outbox.keep_ids)} is "
        "known and not sent twice."
    )


def _endpoint(endpoint: EndpointSection) -> Iterator[str]:
    yield f"Events are posted to {redact_url(str(endpoint.url))}."
    yield from _selection(endpoint)
    yield from _shape(endpoint)
    yield from _proofs(endpoint)
    yield from _encryption(endpoint)
    several = f"{endpoint.concurrency} sessions" if endpoint.concurrency > 1 else "one session"
    yield (
        f"Within a session one request follows the other, in the order of events; {several} may have a request in flight at "
        f"once. The receiver has {in_words(endpoint.timeout)} to answer."
    )
    counts = "200 and nothing else" if endpoint.success == "200" else "any status from 200 to 299"
    yield f"An event is delivered when the answer is {counts}. Redirects are not followed: they are failed tries."
    yield from _tries(endpoint)
    yield from _afterwards(endpoint.retry)


def _selection(endpoint: EndpointSection) -> Iterator[str]:
    left_out = [event.value for event in EventType if event not in endpoint.events]
    if not left_out:
        yield "It gets events of all types."
    elif len(left_out) <= 2:
        yield f"It gets events of all types but {_list(left_out)}."
    else:
        yield f"It gets {_list([event.value for event in endpoint.events])}."
    filters = [
        f"{what} {_list(values, 'or')}"
        for what, values in (
            ("of department", endpoint.departments),
            ("with tag", endpoint.tags),
            ("from source", endpoint.sources),
        )
        if values
    ]
    if filters:
        both = "; all of this has to be so" if len(filters) > 1 else ""
        yield (
            f"Only sessions {', '.join(filters)}{both}. That is decided once, when the event happens; an event of which it "
            "cannot be known passes, as an offline message from the intake does."
        )


def _shape(endpoint: EndpointSection) -> Iterator[str]:
    if endpoint.profile is Profile.GUIDE:
        yield "Payloads have the shape of Rocket.Chat's guide: e-mail and phone are plain texts."
    else:
        yield "Payloads are as a Rocket.Chat server sends them, member by member: e-mail and phone are lists."
    match endpoint.crm_data:
        case "text":
            yield "The body of its last answer 200 comes back as crmData in later payloads of the session."
        case "object":
            yield "The member `data` of its last answer 200 comes back as crmData in later payloads of the session."


def _proofs(endpoint: EndpointSection) -> Iterator[str]:
    signed = bool(endpoint.signing_secrets) or endpoint.signing_secrets_file is not None
    token = bool(endpoint.secret_token) or endpoint.secret_token_file is not None
    if token:
        yield f"Each request carries the token {_origin('secret_token', endpoint.secret_token_file)} in {TOKEN_HEADER}."
    if endpoint.signing_secrets_file is not None:
        yield f"Each request is signed (Standard Webhooks) with every secret in the file {endpoint.signing_secrets_file}."
    elif signed:
        count = len(endpoint.signing_secrets)
        secrets = "the secret" if count == 1 else f"each of the {count} secrets"
        yield f"Each request is signed (Standard Webhooks) with {secrets} in signing_secrets."
    if endpoint.authorization is not None:
        yield f"Its Authorization is made of {endpoint.authorization}{_authorization_file(endpoint)}."
    if others := [name for name in (*endpoint.headers, *endpoint.header_files) if name.lower() != "authorization"]:
        yield f"More headers: {_list(others)}."
    if not token and not signed and endpoint.authorization is None:
        yield "Beware: nothing tells the receiver that a request is the relay's; secret_token or signing_secrets would."


def _authorization_file(endpoint: EndpointSection) -> str:
    file = endpoint.bearer_token_file or (endpoint.basic_auth.password_file if endpoint.basic_auth is not None else None)
    return "" if file is None else f", with the file {file}"


def _origin(key: str, file: Path | None) -> str:
    return f"of {key}" if file is None else f"in the file {file}"


def _encryption(endpoint: EndpointSection) -> Iterator[str]:
    if endpoint.url.scheme != "https":
        yield "Requests are not encrypted, as the url begins with http://."
        return
    tls = endpoint.tls
    authorities = "the system knows" if tls.ca_file is None else f"is in the file {tls.ca_file}"
    own = "" if tls.certificate_file is None else f"; the relay shows its own certificate from the file {tls.certificate_file}"
    yield f"The receiver's certificate must be vouched for by an authority that {authorities}{own}."


def _tries(endpoint: EndpointSection) -> Iterator[str]:
    retry = endpoint.retry
    if retry.tries == 1:
        yield "An event gets one try, and no second one when it fails."
    else:
        shortest = round_span(retry)
        longest = shortest * (1 + retry.jitter) + endpoint.timeout * retry.tries
        more = " (more with Retry-After)" if retry.honour_retry_after else ""
        yield (
            f"When a try fails - another answer, a time-out, no connection - the event gets {retry.tries} tries in a round, with "
            f"{_waits(retry)}. A round takes {in_words(shortest)} when failures come at once, {in_words(longest)} when every "
            f"try runs into the time-out{more}."
        )
    if retry.jitter:
        yield f"Up to {retry.jitter:.0%} is added to each wait at random."
    if retry.honour_retry_after:
        yield f"A longer wait that an answer asks for in Retry-After is kept, {in_words(_LONGEST_RETRY_AFTER)} at most."
    if retry.final:
        yield f"After an answer of {_list([str(status) for status in retry.final], 'or')} there is no further try."


def _waits(retry: RetrySection) -> str:
    waits = [retry.waits[min(number, len(retry.waits)) - 1] for number in range(1, retry.tries)]
    if len(set(waits)) == 1:
        return f"a wait of {in_words(waits[0])} between them" if len(waits) > 1 else f"a wait of {in_words(waits[0])}"
    repeated = len(waits) - len(retry.waits) + 1
    texts = [in_words(wait) for wait in waits[: len(retry.waits)]]
    last = f", the last one {repeated} times" if repeated > 1 else ""
    return f"waits of {_list(texts)}{last}"


def round_span(retry: RetrySection) -> timedelta:
    """How long the waits of a round are together, without what is added at random."""
    return sum((retry.waits[min(number, len(retry.waits)) - 1] for number in range(1, retry.tries)), timedelta())


def _afterwards(retry: RetrySection) -> Iterator[str]:
    kept = "kept with its payload and its attempts, and out of the way of its session's later events"
    if retry.outage_probe:
        yield (
            "If a round ends without a connection, with a time-out, 5xx, 408, 425 or 429, and the endpoint took nothing else "
            "meanwhile, it is down: its events wait in their order and lose no tries, one request every "
            f"{in_words(retry.outage_probe)} finds out whether it is back, and then all of them follow, each with a new round."
        )
        yield f"An event whose round ends in any other way is dead: {kept}."
    else:
        yield f"An event whose round ends without success is dead: {kept}."
    yield (
        f"No event is tried any more {in_words(retry.max_age)} after the relay read it. `livechat-relay deliveries` shows what "
        "is owed and dead, and sends it again."
    )


def _networks(config: Config) -> Iterator[str]:
    yield "To private networks and loopback, but not to link-local addresses, metadata services of clouds and multicast."
    if config.send.deny:
        yield f"Also not to {_list([str(network) for network in config.send.deny])}."
    if config.send.allow:
        allowed = _list([str(network) for network in config.send.allow])
        yield f"But always to {allowed}, unless a smaller network is refused."


def _here(config: Config) -> Iterator[str]:
    yield f"Health and metrics are at http://{config.serve.listen}/readyz, /livez and /metrics."
    if config.intake.enabled:
        token = _origin("intake.secret_token", config.intake.secret_token_file)
        where = f"http://{config.serve.listen}/intake/offline"
        yield f"Rocket.Chat's own webhook for offline messages is taken at {where}, with the token {token}."
    else:
        yield "Offline messages come from Rocket.Chat's channel for them only; the intake is off."
    grace = in_words(config.relay.grace)
    yield f"When the relay is told to stop, requests in flight may finish for {grace}; the rest is sent after the next start."
    yield f"Logs are written from level {config.log.level} on."


def in_words(value: timedelta) -> str:
    """`value` in its two largest units: `1 minute 30 seconds`."""
    seconds = value.total_seconds()
    if 0 < seconds < 1 or (seconds < 60 and seconds % 1):
        return f"{seconds * 1000:.0f} milliseconds"
    rest, parts = round(seconds), []
    for name, length in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "no time"


def _list(items: Iterable[str], word: str = "and") -> str:
    texts: Sequence[str] = list(items)
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {word} {texts[-1]}"
