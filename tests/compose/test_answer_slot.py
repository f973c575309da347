"""The place of a CRM's answer in a body, and what happens to the body when one is put in."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.compose.files import with_tokens
from daemon.compose.json_text import ABSENT, AnswerSlot, FileLink, encode, with_answer
from daemon.model import Body, EventType, Profile
from tests.compose.build import context, file_message, payload, room, upload

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
LINK = FileLink("https://chat.example.org/file-upload/f1/写真.png", "room1", "user1", "f1")
OTHER = FileLink("https://chat.example.org/file-upload/f2/b.png", "room1", "user1", "f2")


def text(body: Body) -> str:
    return body.content.decode()


class TestEncode:
    @pytest.mark.parametrize(
        ("value", "written"),
        [
            pytest.param(ABSENT, "", id="none"),
            pytest.param("own", ',"crmData":"own"', id="text"),
            pytest.param('say "hi", ü😀', ',"crmData":"say \\"hi\\", ü😀"', id="text with quotes and commas"),
            pytest.param({"a": 1.0, "2": [None]}, ',"crmData":{"2":[null],"a":1}', id="object"),
            pytest.param([], ',"crmData":[]', id="empty list"),
            pytest.param(1e21, ',"crmData":1e+21', id="number"),
            pytest.param(NOW, ',"crmData":"2026-11-23T08:00:00.000Z"', id="date"),
            pytest.param(math.nan, ',"crmData":null', id="no number"),
        ],
    )
    def test_its_own_value_stands_there(self, value: Any, written: str) -> None:
        body = encode({"a": "ü,", "crmData": AnswerSlot(value), "z": [1, 2]})

        assert text(body) == f'{{"a":"ü,"{written},"z":[1,2]}}'
        assert body.answer is not None
        start, end = body.answer
        assert body.content[start:end].decode() == written

    def test_a_body_without_a_slot_has_no_place(self) -> None:
        assert encode({"a": 1}).answer is None

    @pytest.mark.parametrize("value", [ABSENT, "own"], ids=["none", "own"])
    def test_as_the_last_member(self, value: Any) -> None:
        body = encode({"a": 1, "crmData": AnswerSlot(value)})

        assert orjson.loads(body.content) == ({"a": 1} if value is ABSENT else {"a": 1, "crmData": "own"})
        assert orjson.loads(with_answer(body, b"[1]").content) == {"a": 1, "crmData": [1]}

    def test_nested(self) -> None:
        body = encode({"a": [{"b": {"c": "x,y", "crmData": AnswerSlot("own"), "d": 1}}], "e": 2})

        assert orjson.loads(body.content) == {"a": [{"b": {"c": "x,y", "crmData": "own", "d": 1}}], "e": 2}
        assert orjson.loads(with_answer(body, b"null").content) == {
            "a": [{"b": {"c": "x,y", "crmData": None, "d": 1}}],
            "e": 2,
        }


class TestWithAnswer:
    @pytest.mark.parametrize("own", [ABSENT, "own ü", {"deep": [1]}], ids=["none", "text", "object"])
    @pytest.mark.parametrize("answer", [b'"ok"', '{"ü":"😀,"}'.encode(), b"[]", b"0"], ids=["text", "object", "list", "number"])
    def test_it_takes_the_place(self, own: Any, answer: bytes) -> None:
        body = encode({"a": "日本", "crmData": AnswerSlot(own), "z": "ü"})

        assert text(with_answer(body, answer)) == f'{{"a":"日本","crmData":{answer.decode()},"z":"ü"}}'

    def test_without_an_answer_it_is_left_as_it_is(self) -> None:
        body = encode({"a": 1, "crmData": AnswerSlot("own")})

        assert with_answer(body, None) is body

    def test_a_body_without_a_place_is_left_as_it_is(self) -> None:
        body = encode({"a": 1, "link": LINK})

        assert with_answer(body, b'"ok"') is body

    def test_a_later_answer_replaces_an_earlier_one(self) -> None:
        body = encode({"a": 1, "crmData": AnswerSlot(ABSENT), "link": LINK})

        twice = with_answer(with_answer(body, b'"a long first answer"'), b"2")

        assert twice == with_answer(body, b"2")

    def test_the_stored_body_does_not_change(self) -> None:
        body = encode({"a": 1, "crmData": AnswerSlot("own"), "link": LINK})
        before = Body(body.content, body.files, body.answer)

        with_answer(body, b'"ok"')

        assert body == before


class TestFileLinks:
    @pytest.mark.parametrize("own", [ABSENT, "own ü?token=", ["x"]], ids=["none", "text", "list"])
    @pytest.mark.parametrize("answer", [None, b'"\xc3\xbc, ?token="', b"{}"], ids=["no answer", "long", "short"])
    def test_before_and_after(self, own: Any, answer: bytes | None) -> None:
        body = with_answer(encode({"a": LINK, "crmData": AnswerSlot(own), "z": {"deep": [OTHER]}}), answer)

        assert [names for _, *names in body.files] == [["room1", "user1", "f1"], ["room1", "user1", "f2"]]
        sent = orjson.loads(with_tokens(body, "secret", NOW))
        assert sent["a"].startswith(f"{LINK.url}?token=ey")
        assert sent["z"]["deep"][0].startswith(f"{OTHER.url}?token=ey")
        expected = own if answer is None else orjson.loads(answer)
        assert sent.get("crmData", ABSENT) == expected

    def test_directly_before_and_directly_after(self) -> None:
        body = with_answer(encode({"a": LINK, "crmData": AnswerSlot(ABSENT), "z": OTHER}), b'"answer"')

        (first, *_), (second, *_) = body.files
        assert body.content[:first].decode().endswith("写真.png?token=")
        assert body.content[first:].startswith(b'","crmData":"answer","z":')
        assert body.content[second:] == b'"}'

    @pytest.mark.parametrize("profile", list(Profile), ids=str)
    def test_in_a_payload(self, profile: Profile) -> None:
        """One profile has its files before the answer, the other behind it."""
        protected = {"FileUpload_ProtectFiles": True, "FileUpload_Enable_json_web_token_for_files": True}
        of = context(EventType.MESSAGE, room=room(crmData="of Rocket.Chat"), settings={"Site_Url": "https://x", **protected})
        content = payload(profile, of, file_message(), uploads=(upload(),), plain=False)

        sent = orjson.loads(with_tokens(with_answer(encode(content), b'{"of":"the endpoint"}'), "secret", NOW))

        assert sent["crmData"] == {"of": "the endpoint"}
        assert sent["messages"][0]["fileUpload"]["publicFilePath"].count(".") >= 3, "a token has three parts"
        assert list(sent) == list(orjson.loads(encode(content).content)), "members stay where they are"


PIECES = st.lists(st.one_of(st.text(max_size=6), st.just(LINK), st.just(OTHER)), max_size=4)
ANSWERS = st.one_of(st.none(), st.text(max_size=8), st.lists(st.integers(0, 9), max_size=3), st.just({"?token=": ",é"}))


@given(before=PIECES, after=PIECES, own=st.one_of(st.just(ABSENT), ANSWERS), answer=ANSWERS)
@settings(max_examples=100)
def test_whatever_is_around_it(before: list[Any], after: list[Any], own: Any, answer: Any) -> None:
    body = with_answer(encode({"b": before, "crmData": AnswerSlot(own), "a": after}), orjson.dumps(answer))

    read = orjson.loads(body.content)
    assert list(read) == ["b", "crmData", "a"]
    assert read["crmData"] == answer
    assert read["b"] == [f"{item.url}?token=" if isinstance(item, FileLink) else item for item in before]
    assert read["a"] == [f"{item.url}?token=" if isinstance(item, FileLink) else item for item in after]
    links = [item for item in (*before, *after) if isinstance(item, FileLink)]
    assert [file for *_, file in body.files] == [link.file for link in links]
    for offset, *_, file in body.files:
        assert body.content[:offset].endswith(b"?token=")
        assert body.content[:offset].rpartition(b"/file-upload/")[2].startswith(file.encode())
