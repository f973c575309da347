"""Which texts are leads. What is expected of a pattern is what `new RegExp(pattern, "gi").test(text)` gives in Node 20."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from daemon.compose.leads import is_lead

PHONE = (
    r"((?:\([0-9]{1,3}\)|[0-9]{2})[ \-]*?[0-9]{4,5}(?:[\-\s\_]{1,2})?[0-9]{4}(?:(?=[^0-9])|$)"
    r"|[0-9]{4,5}(?:[\-\s\_]{1,2})?[0-9]{4}(?:(?=[^0-9])|$))"
)
EMAIL = r"\b[A-Z0-9._%+-]+@(?:[A-Z0-9-]+\.)+[A-Z]{2,4}\b"


def matches(pattern: object, text: str) -> bool:
    """By the pattern for phone numbers, which heeds case."""
    return is_lead(text, phone_pattern=pattern, email_pattern="")


def lead(text: str) -> bool:
    """By the patterns that Rocket.Chat comes with."""
    return is_lead(text, phone_pattern=PHONE, email_pattern=EMAIL)


class TestDefaults:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("call 11 98765-4321", True, id="with area"),
            pytest.param("(030) 12345 6789", True, id="area in brackets"),
            pytest.param("+49 30 5550 1234", True, id="international"),
            pytest.param("1234-5678", True, id="short"),
            pytest.param("98765--4321", True, id="two dashes"),
            pytest.param("98765---4321", False, id="three dashes"),
            pytest.param("12345_6789", True, id="underscore"),
            pytest.param("12345\u00a06789", True, id="no-break space"),
            pytest.param("12345\u20286789", True, id="line separator"),
            pytest.param("12345\n6789", True, id="line break"),
            pytest.param("12345\u20116789", False, id="no-break hyphen"),
            pytest.param("123456789\n", True, id="line break at the end"),
            pytest.param("12345 6789 1", True, id="another number behind"),
            pytest.param("1234-5678x", True, id="letters behind"),
            pytest.param("1234567890123", True, id="many digits"),
            pytest.param("1234 567", False, id="too short"),
            pytest.param("0176 1234567", False, id="other groups"),
            pytest.param("order 123", False, id="three digits"),
            pytest.param("".join(chr(0xFF10 + digit) for digit in range(10)), False, id="wide digits"),
            pytest.param("".join(chr(0x0660 + digit) for digit in range(10)), False, id="Arabic digits"),
            pytest.param("", False, id="empty"),
        ],
    )
    def test_phone_numbers(self, text: str, expected: bool) -> None:
        assert lead(text) is expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("a@b.de", True, id="lower case"),
            pytest.param("ERIKA@EXAMPLE.ORG", True, id="upper case"),
            pytest.param("write to x a.b+c@d-e.co.uk.", True, id="in a sentence"),
            pytest.param("mail:a@b.de", True, id="behind a colon"),
            pytest.param("a b@c.de d", True, id="between words"),
            pytest.param("a@b.museum", False, id="long domain"),
            pytest.param("a@b.de1", False, id="digit behind"),
            pytest.param("a@b.deé", True, id="letter beyond ASCII behind"),
            pytest.param("erika@exämple.org", False, id="umlaut in the domain"),
            pytest.param("é@b.de", False, id="letter beyond ASCII"),
            pytest.param("\u212a@x.de", False, id="Kelvin sign"),
            pytest.param("a@b.\u017fe", False, id="long s"),
            pytest.param("a@b", False, id="no domain"),
            pytest.param("a@@b.de", False, id="two signs"),
            pytest.param("a@b_c.de", False, id="underscore"),
        ],
    )
    def test_email_addresses(self, text: str, expected: bool) -> None:
        assert lead(text) is expected

    def test_either_is_enough(self) -> None:
        assert is_lead("a@b.de", phone_pattern=None, email_pattern=EMAIL)
        assert is_lead("1234-5678", phone_pattern=PHONE, email_pattern=None)
        assert not is_lead("Hello", phone_pattern=PHONE, email_pattern=EMAIL)

    def test_only_the_address_ignores_case(self) -> None:
        assert is_lead("ABC", phone_pattern="", email_pattern="abc")
        assert not is_lead("ABC", phone_pattern="abc", email_pattern="")


class TestJavascript:
    SPACES = "\t\n\v\f\r \u00a0\u1680\u2000\u2005\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
    NO_SPACES = "a_\u0085\u001c\u180e\u200b\u2060"

    @pytest.mark.parametrize(
        ("pattern", "text", "expected"),
        [
            pytest.param("a$", "a\n", False, id="end is not before a line break"),
            pytest.param("^a$", "b\na", False, id="begin is not behind a line break"),
            pytest.param("a|$", "b", True, id="end as a branch"),
            pytest.param("[$]", "$", True, id="dollar in a class"),
            pytest.param("[$]", "a", False, id="dollar in a class is no end"),
            pytest.param(r"\$", "$", True, id="escaped dollar"),
            pytest.param(r"[\-\s\_]", "_", True, id="escaped underscore"),
            pytest.param(r"\-\/\@\ ", "-/@ ", True, id="escaped signs"),
            pytest.param(r"\A\z\Z\G\K\h", "AzZGKh", True, id="letters that mean nothing in JavaScript"),
            pytest.param("[[]", "[", True, id="bracket in a class"),
            pytest.param("[[:alpha:]]", "a]", True, id="no POSIX classes"),
            pytest.param("[[:alpha:]]", "x", False, id="no POSIX classes, another letter"),
            pytest.param("[a&&b]", "&", True, id="no set operations"),
            pytest.param("[a--b]", "a", False, id="range the wrong way"),
            pytest.param(r"[\]a]", "]", True, id="escaped bracket in a class"),
            pytest.param(r"\d", "\u0663", False, id="digits are ASCII"),
            pytest.param(r"\w", "é", False, id="letters are ASCII"),
            pytest.param(r"\b", "é", False, id="word boundaries are ASCII"),
            pytest.param("é", "É", False, id="case"),
            pytest.param("(?<year>[0-9]{4})", "2026", True, id="named group"),
            pytest.param("a(?=b)", "ab", True, id="lookahead"),
            pytest.param("a(?=b)", "ac", False, id="lookahead fails"),
            pytest.param("a(?!b)", "ab", False, id="negative lookahead"),
            pytest.param("(?<=a)b", "ab", True, id="lookbehind"),
            pytest.param("(?<!a)b", "ab", False, id="negative lookbehind"),
            pytest.param(r"(a)\1", "aa", True, id="reference"),
            pytest.param("x{a}", "x{a}", True, id="braces that repeat nothing"),
            pytest.param(r"\u0041\x42", "AB", True, id="code points"),
            pytest.param(r"[\b]", "\b", True, id="backspace"),
            pytest.param("a b#c", "a b#c", True, id="blanks and number signs count"),
            pytest.param("a.b", "a\nb", False, id="dot and line break"),
            pytest.param(r"(?<sign>a)\k<sign>", "aa", True, id="reference by name"),
            pytest.param("a[^]b", "a\nb", True, id="any character"),
            pytest.param("[]a]", "]", False, id="empty class"),
            pytest.param("a.b", "a\rb", False, id="dot and carriage return"),
            pytest.param("a.b", "a\u2028b", False, id="dot and line separator"),
            pytest.param("(?:foo){e<=1}", "fxo", False, id="nearly equal"),
            pytest.param("^a{,2}$", "aa", False, id="braces without a lower bound"),
        ],
    )
    def test_a_pattern_means_what_it_means_there(self, pattern: str, text: str, expected: bool) -> None:
        assert matches(pattern, text) is expected

    @pytest.mark.parametrize("pattern", [r"^\s$", r"^[\s]$", r"^[x\s]$"], ids=["alone", "in a class", "beside others"])
    def test_spaces(self, pattern: str) -> None:
        assert [char for char in self.SPACES if not matches(pattern, char)] == []
        assert [char for char in self.NO_SPACES if matches(pattern, char)] == []

    @pytest.mark.parametrize("pattern", [r"^\S$", r"^[^\s]$"], ids=["alone", "in a class"])
    def test_what_is_no_space(self, pattern: str) -> None:
        assert [char for char in self.SPACES if matches(pattern, char)] == []
        assert [char for char in self.NO_SPACES if not matches(pattern, char)] == []

    @pytest.mark.xfail(strict=True, reason="rare, and not translated")
    @pytest.mark.parametrize(
        ("pattern", "text", "expected"),
        [
            pytest.param(r"[^\S]", "\u00a0", True, id="no space, negated in a class"),
            pytest.param("(a)?\\1b", "b", True, id="reference to a group that took no part"),
            pytest.param(r"\cJ", "\n", True, id="control letter"),
            pytest.param(r"\k", "k", True, id="k of no name"),
        ],
    )
    def test_what_is_not_translated(self, pattern: str, text: str, expected: bool) -> None:
        assert matches(pattern, text) is expected


class TestOddPatterns:
    @pytest.mark.parametrize("pattern", ["", None, 5, ["a"], {}], ids=repr)
    def test_no_pattern_matches_nothing(self, pattern: object) -> None:
        assert not is_lead("a 1234-5678 a@b.de", phone_pattern=pattern, email_pattern=pattern)

    @pytest.mark.parametrize("pattern", ["once(", "**once", "once\\", "[once", "(?<once"], ids=repr)
    def test_an_invalid_one_matches_nothing_and_is_told_once(self, pattern: str) -> None:
        with capture_logs() as lines:
            for text in ("once", "twice"):
                assert not is_lead(text, phone_pattern=pattern, email_pattern="")
        assert [(line["event"], line["pattern"]) for line in lines] == [("compose.lead_pattern_invalid", pattern)]

    def test_an_invalid_one_does_not_hinder_the_other(self) -> None:
        assert is_lead("a@b.de", phone_pattern="(", email_pattern=EMAIL)

    def test_a_catastrophic_one_is_given_up(self) -> None:
        with capture_logs() as lines:
            started = time.monotonic()
            assert not matches("(a+)+b", "a" * 4000 + "c")
            took_s = time.monotonic() - started
        assert took_s < 2
        assert [line["event"] for line in lines] == ["compose.lead_pattern_slow"]
        assert "aaaa" not in str(lines), "what the visitor wrote is not logged"

    def test_the_text_of_the_longest_message_is_no_problem_for_the_defaults(self) -> None:
        for text in ("1" * 5000, "a" * 5000, "a." * 2500, "a@" * 2500, "1234 " * 1000):
            with capture_logs() as lines:
                lead(text)
            assert lines == []
