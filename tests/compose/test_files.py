from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import unquote

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.compose.files import file_link, file_token, with_tokens
from daemon.compose.json_text import FileLink, encode
from daemon.model import Body

NOW = datetime(2026, 11, 23, 8, 0, 0, 999_000, tzinfo=UTC)
NOW_S = 1_795_420_800


def link(name: str | None, site: str = "https://chat.example.org", *, token: bool = False) -> str | FileLink:
    upload = {"_id": "f1", "name": name, "type": "image/png", "size": 1}
    return file_link(site, upload, room="room1", user="user1", token=token)


# What `encodeURI` gives in Node 20.
@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("a.png", "a.png"),
        ("parcel box.jpg", "parcel%20box.jpg"),
        ("Grüße.txt", "Gr%C3%BC%C3%9Fe.txt"),
        ("写真😀.png", "%E5%86%99%E7%9C%9F%F0%9F%98%80.png"),
        (";,/:@&=+$-_.!~*'()#", ";,/:@&=+$-_.!~*'()#"),
        ('"<>[]\\^`{|}', "%22%3C%3E%5B%5D%5C%5E%60%7B%7C%7D"),
        ("100%.txt", "100%25.txt"),
        ("a%20b.txt", "a%2520b.txt"),
        ("line\nend\ttab", "line%0Aend%09tab"),
        ("../../etc", "../../etc"),
    ],
    ids=["plain", "blank", "umlauts", "wide", "left as they are", "encoded", "percent", "encoded already", "control", "dots"],
)
def test_names_are_encoded_as_by_encode_uri(name: str, encoded: str) -> None:
    assert link(name) == f"https://chat.example.org/file-upload/f1/{encoded}"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="?"), min_size=1, max_size=10))
@settings(max_examples=100)
def test_every_name_can_be_read_back(name: str) -> None:
    url = link(name)

    assert isinstance(url, str)
    assert url.isascii()
    assert unquote(url.removeprefix("https://chat.example.org/file-upload/f1/")) == name


@pytest.mark.parametrize(
    ("site", "base"),
    [
        ("https://chat.example.org", "https://chat.example.org"),
        ("https://chat.example.org/", "https://chat.example.org"),
        ("  https://chat.example.org/ \n", "https://chat.example.org"),
        ("https://example.org/chat", "https://example.org/chat"),
        ("https://example.org/chat/", "https://example.org/chat"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("", ""),
        ("https://chat.example.org//", "https://chat.example.org"),
    ],
    ids=["plain", "slash", "blanks", "prefix", "prefix and slash", "port", "not set", "two slashes"],
)
def test_the_address_of_the_site(site: str, base: str) -> None:
    assert link("a.png", site) == f"{base}/file-upload/f1/a.png"


@pytest.mark.parametrize("upload", [{}, {"name": ""}, {"name": None}], ids=["absent", "empty", "null"])
@pytest.mark.parametrize("token", [True, False], ids=["protected", "open"])
def test_a_file_without_a_name_has_an_empty_link_and_no_token(upload: dict[str, Any], token: bool) -> None:
    assert file_link("https://chat.example.org", {"_id": "f1", **upload}, room="room1", user="user1", token=token) == ""


def test_a_protected_link_names_room_author_and_file() -> None:
    url = link("a.png")

    assert isinstance(url, str)
    assert link("a.png", token=True) == FileLink(url, "room1", "user1", "f1")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("what?.png", "what?.png"),
        ("a?b?c.png", "a?b"),
        ("?a", "?a"),
        pytest.param("a??b", "a"),
        pytest.param("what?", "what"),
    ],
    ids=["one", "two", "first", "two in a row", "last"],
)
@pytest.mark.parametrize("token", [True, False], ids=["protected", "open"])
def test_a_question_mark_in_a_name_takes_the_place_of_the_token(name: str, end: str, token: bool) -> None:
    assert link(name, token=token) == f"https://chat.example.org/file-upload/f1/{end}"


# Tokens.


def read_token(token: bytes, secret: str) -> tuple[bytes, dict[str, Any]]:
    """Header as it is and claims of a token whose signature is right."""
    head, claims, signature = token.split(b".")
    expected = hmac.new(secret.encode(), head + b"." + claims, hashlib.sha256).digest()
    assert signature == base64.urlsafe_b64encode(expected).rstrip(b"=")
    return _decoded(head), cast("dict[str, Any]", orjson.loads(_decoded(claims)))


def _decoded(part: bytes) -> bytes:
    assert b"=" not in part
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


@pytest.mark.parametrize("secret", ["s3cret", "", "geheim-ü😀", "x" * 200], ids=["text", "empty", "wide", "long"])
def test_a_token_says_and_proves_what_rocket_chat_expects(secret: str) -> None:
    header, claims = read_token(file_token(secret, NOW, room="room1", user="user1", file="f1"), secret)

    assert header == b'{"typ":"JWT","alg":"HS256"}'
    assert claims == {
        "iat": NOW_S,
        "nbf": NOW_S,
        "exp": NOW_S + 3600,
        "aud": "RocketChat",
        "context": {"rid": "room1", "userId": "user1", "fileId": "f1"},
    }


def test_a_token_of_another_secret_does_not_verify() -> None:
    with pytest.raises(AssertionError):
        read_token(file_token("one", NOW, room="room1", user="user1", file="f1"), "two")


def test_the_token_of_a_known_example() -> None:
    # Made with Node's `crypto` from the same header, claims and secret.
    assert file_token("s3cret", NOW, room="room1", user="user1", file="f1") == (
        b"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9."
        b"eyJpYXQiOjE3OTU0MjA4MDAsIm5iZiI6MTc5NTQyMDgwMCwiZXhwIjoxNzk1NDI0NDAwLCJhdWQiOiJSb2NrZXRDaGF0IiwiY29udGV4dCI6eyJyaWQiOiJyb29tMSIsInVzZXJJZCI6InVzZXIxIiwiZmlsZUlkIjoiZjEifX0."
        b"y-6KPRn6cibLqxU5I1nUxnGV6T4KyyXI4EEfYiAKZls"
    )


def test_a_body_without_links_is_sent_as_it_is() -> None:
    content = '{"text":"?token= ü"}'.encode()

    assert with_tokens(Body(content), "secret", NOW) == content


def test_every_link_gets_its_own_token() -> None:
    site = "https://chat.example.org"
    links = [FileLink(f"{site}/file-upload/f{number}/写真.png", "room1", f"user{number}", f"f{number}") for number in range(3)]
    body = encode({"first": links[0], "text": "日本 ?token=", "list": [links[1], "x", links[2]], "end": True})

    sent = orjson.loads(with_tokens(body, "secret", NOW))

    assert (sent["text"], sent["list"][1], sent["end"]) == ("日本 ?token=", "x", True)
    for number, url in enumerate([sent["first"], sent["list"][0], sent["list"][2]]):
        base, _, token = url.partition("?token=")
        assert base == links[number].url
        _, claims = read_token(token.encode(), "secret")
        assert claims["context"] == {"rid": "room1", "userId": f"user{number}", "fileId": f"f{number}"}


def test_each_attempt_gets_a_fresh_token() -> None:
    body = encode({"link": FileLink("https://chat.example.org/file-upload/f1/a.png", "room1", "user1", "f1")})

    first = with_tokens(body, "secret", NOW)
    later = with_tokens(body, "secret", datetime(2026, 11, 23, 9, tzinfo=UTC))

    assert body.content.endswith(b'?token="}')
    _, claims = read_token(orjson.loads(later)["link"].partition("?token=")[2].encode(), "secret")
    assert claims["exp"] == NOW_S + 7200
    assert first != later
