"""`user_agents.json` holds what ua-parser-js 1.0.40 itself answered; every rule decides at least one of its rows."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.compose.user_agent import UserAgent, parse_user_agent

KNOWN: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("user_agents.json").read_text(encoding="utf-8"),
)

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0"


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN.keys())
def test_answers_as_the_library_does(known: dict[str, str]) -> None:
    assert parse_user_agent(known["text"]) == UserAgent(os=known.get("os"), browser=known.get("browser"))


@pytest.mark.parametrize(
    ("text", "os", "browser"),
    [
        pytest.param(WINDOWS, "Windows 10", "Firefox 127.0", id="both"),
        pytest.param("Linux", "Linux undefined", None, id="system without version"),
        pytest.param("TwitterAndroid", "Android undefined", "Twitter undefined", id="browser without version"),
        pytest.param("curl/8.7.1", None, None, id="neither"),
    ],
)
def test_tells_an_unknown_name_from_an_unknown_version(text: str, os: str | None, browser: str | None) -> None:
    assert parse_user_agent(text) == UserAgent(os=os, browser=browser)


def test_reads_only_the_first_500_characters() -> None:
    start = "Linux 5.4 ".ljust(500, "x")
    assert parse_user_agent(start + " Firefox/127.0" * 100_000) == parse_user_agent(start)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_has_an_answer(text: str) -> None:
    answer = parse_user_agent(text)
    assert all(said is None or " " in said for said in (answer.os, answer.browser))


FRAGMENTS = [
    *(
        "Mozilla/5.0 ",
        "Windows NT ",
        "10.0",
        "; ",
        "(",
        ")",
        " ",
        "_",
        "/",
        "Linux ",
        "Android 14",
        "Mac OS X ",
        "AIX 7.",
    ),
    *("Version/", "Safari/", "Mobile/", "Chrome/", "Opera ", "rv:", "Gecko/", "naver(", "tesla", "cobalt/", "{}", "é"),
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join))
def test_any_mixture_of_known_words_has_an_answer(text: str) -> None:
    answer = parse_user_agent(text)
    assert all(said is None or " " in said for said in (answer.os, answer.browser))


def repeat(*parts: tuple[str, int]) -> str:
    return "".join((part * length)[:length] for part, length in parts)


@pytest.mark.parametrize(
    "text",
    [
        repeat(("droid ", 150), (" version/a", 150), (".a", 200)),
        repeat(("droid 1.", 240), ("android-x8", 250)),
        repeat(("naver(", 200), ("1.1.", 300)),
        repeat(("naver(", 7), ("1.", 490)),
        repeat(("trident", 200), ("rv:a", 290)),
        repeat(("mozilla/1 ", 200), ("rv:", 150), ("gecko/ ", 150)),
        repeat(("version/a ", 250), ("mobile/a ", 250)),
        repeat(("webkit", 200), ("safari", 300)),
        repeat(("ipad ", 200), ("os a ", 300)),
        repeat(("windows nt", 250), ("xbox", 250)),
        repeat(("b" + "ai" * 40, 500)),
        repeat((" qbcore/a", 500)),
        repeat(("xbox; ", 500)),
        repeat(("aix 1.", 6), ("1.", 490)),
        repeat(("opera mobi ", 300), (" version/", 200)),
        repeat(("a", 500)),
        repeat((" ", 500)),
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_costs_no_time(text: str) -> None:
    start = time.perf_counter()
    parse_user_agent(text)
    assert time.perf_counter() - start < 1
