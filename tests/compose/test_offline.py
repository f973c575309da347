import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.compose import offline
from daemon.compose.offline import OfflineMessage, looks_like_offline_post, parse_offline_post

HEADER = "A new Livechat offline Message has been sent"
ENGLISH = {
    "Sent_from": "Sent from",
    "Visitor_Name": "Visitor Name",
    "Visitor_Email": "Visitor E-mail",
    "Department": "Department",
    "Message": "Message",
}
INVENTED = {
    "Sent_from": "Abgesandt durch",
    "Visitor_Name": "Nomo de vizitanto",
    "Visitor_Email": "Retpoŝto",
    "Department": "Sekcio",
    "Message": "Komuniko",
}


def build(
    name: str = "Bob",
    email: str = "bob@client.example",
    message: str = "hello",
    *,
    department: str | None = None,
    host: str | None = None,
    labels: dict[str, str] = ENGLISH,
    header: str = HEADER,
) -> str:
    """The text as Rocket.Chat's sendMessageToChannel puts it together."""
    lines = [
        f"{header}: \n",
        "" if host is None else f"{labels['Sent_from']}: {host} \n",
        f"{labels['Visitor_Name']}: {name} \n",
        f"{labels['Visitor_Email']}: {email} \n",
        "" if department is None else f"{labels['Department']}: {department} \n",
        f"{labels['Message']}: {message} \n",
    ]
    return "".join(lines)


def result(
    name: str | None = "Bob",
    email: str = "bob@client.example",
    message: str = "hello",
    *,
    department: str | None = None,
    host: str | None = None,
    doubtful: bool = False,
) -> OfflineMessage:
    return OfflineMessage(name, email, message, department, host, doubtful)


def post(*lines: str) -> str:
    """The text of a post line by line."""
    return "".join(f"{line} \n" for line in lines)


UNICODE_NAME = "Évangéline \N{MATHEMATICAL SCRIPT CAPITAL Q} שלום"
UNICODE_TEXT = (
    "emoji 👩\u200d👩\u200d👧\u200d👦 rtl \u202eabc\u202c zero\u200bwidth"
    ' "quotes" <b>html</b> `code` *bold* :smile: \x07bell \\ backslash'
)
FORGED_NAME = "Evil\nVisitor E-mail: fake@evil.example"
FORGED_TEXT = "Message: inner label \nVisitor Name: Somebody Else \nDepartment: Fake \nSent from: https://evil.example \n"

# What a server wrote, and what its own webhook said.
RECORDED = {
    "plain": (
        post(
            f"{HEADER}:",
            "Visitor Name: Olga Offline",
            "Visitor E-mail: olga@client.example",
            "Message: Please call me back",
        ),
        result("Olga Offline", "olga@client.example", "Please call me back"),
    ),
    "host": (
        post(
            f"{HEADER}:",
            "Sent from: https://shop.example.test",
            "Visitor Name: Olga Offline",
            "Visitor E-mail: olga@client.example",
            "Message: With host",
        ),
        result("Olga Offline", "olga@client.example", "With host", host="https://shop.example.test"),
    ),
    "host-and-department": (
        post(
            f"{HEADER}:",
            "Sent from: https://shop.example.test/help",
            "Visitor Name: Omar",
            "Visitor E-mail: omar@client.example",
            "Department: Technical Support",
            "Message: for support",
        ),
        result(
            "Omar",
            "omar@client.example",
            "for support",
            department="Technical Support",
            host="https://shop.example.test/help",
        ),
    ),
    "department": (
        post(
            f"{HEADER}:",
            "Visitor Name: Omar",
            "Visitor E-mail: omar@client.example",
            "Department: Sales",
            "Message: for sales, whose own channel is empty",
        ),
        result("Omar", "omar@client.example", "for sales, whose own channel is empty", department="Sales"),
    ),
    "many-lines": (
        post(
            f"{HEADER}:",
            "Visitor Name: Multi Line",
            "Visitor E-mail: multi@client.example",
            "Message: first line\nsecond line\r\nthird line\n\nafter a blank line",
        ),
        result("Multi Line", "multi@client.example", "first line\nsecond line\r\nthird line\n\nafter a blank line"),
    ),
    "forged-labels": (
        post(
            f"{HEADER}:",
            "Sent from: https://shop.example.test",
            f"Visitor Name: {FORGED_NAME}",
            "Visitor E-mail: real@client.example",
            f"Message: {FORGED_TEXT}",
        ),
        result(FORGED_NAME, "real@client.example", FORGED_TEXT, host="https://shop.example.test"),
    ),
    "unicode": (
        post(
            f"{HEADER}:",
            f"Visitor Name: {UNICODE_NAME}",
            "Visitor E-mail: ünï@client.example",
            f"Message: {UNICODE_TEXT}",
        ),
        result(UNICODE_NAME, "ünï@client.example", UNICODE_TEXT),
    ),
    "empty-name-and-text": (
        post(f"{HEADER}:", "Visitor Name: ", "Visitor E-mail: empty@client.example", "Message: "),
        result("", "empty@client.example", ""),
    ),
    "long": (
        post(f"{HEADER}:", "Visitor Name: Long", "Visitor E-mail: long@client.example", f"Message: {'x' * 6000}"),
        result("Long", "long@client.example", "x" * 6000),
    ),
    "mentions": (
        post(
            f"{HEADER}:",
            "Visitor Name: Mention",
            "Visitor E-mail: m@client.example",
            "Message: @all @alice see #general",
        ),
        result("Mention", "m@client.example", "@all @alice see #general"),
    ),
}


@pytest.mark.parametrize(("text", "expected"), RECORDED.values(), ids=RECORDED)
def test_recorded_posts_are_read_as_the_server_meant_them(text: str, expected: OfflineMessage) -> None:
    assert parse_offline_post(text, "en") == expected


@pytest.mark.parametrize("language", [None, "", "xx", "xx-YY", "de", "ja"])
def test_english_posts_are_read_whatever_the_language(language: str | None) -> None:
    assert parse_offline_post(build(host="h", department="Sales"), language) == result(host="h", department="Sales")


LANGUAGES = (*offline._load_labels(), "bas-CM", "de-AT", "de-IN", "hi", "nb-NO", "nn", "si")


@pytest.mark.parametrize("setting", ["same", "unset", "other"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_mix_of_a_languages_labels_is_read(language: str, setting: str) -> None:
    known = offline._load_labels()
    fallbacks = dict.fromkeys((language, language.partition("-")[0], "en"))
    choices = [[text for name in fallbacks for text in known.get(name, {}).get(role, ())] for role in ENGLISH]
    given_language = {"same": language, "unset": None, "other": "ru" if language != "ru" else "ja"}[setting]
    for texts in itertools.product(*choices):
        labels = dict(zip(ENGLISH, texts, strict=True))
        for host, department in ((None, None), ("https://a.example", None), (None, "Sales"), ("h", "Sales")):
            text = build("Zoë", "z@a.example", "one \ntwo", host=host, department=department, labels=labels)
            expected = result("Zoë", "z@a.example", "one \ntwo", host=host, department=department)
            assert parse_offline_post(text, given_language) == expected


def test_labels_cannot_be_taken_for_each_other() -> None:
    roles: dict[str, str] = {}
    for labels in offline._load_labels().values():
        for role, texts in labels.items():
            for text in texts:
                assert roles.setdefault(text, role) == role
                assert text == text.strip()
                assert not {":", "\n"} & set(text)
    assert set(roles.values()) == set(ENGLISH)


TRANSLATED = {
    "pt-BR": (
        post(
            "Uma nova mensagem offline do livechat foi enviada:",
            "Enviado de: https://loja.example.org",
            "Nome do visitante: João Exemplo",
            "E-mail do visitante: joao@example.org",
            "Departamento: Vendas",
            "Mensagem: Quero um orçamento",
        ),
        "pt-BR",
        result(
            "João Exemplo",
            "joao@example.org",
            "Quero um orçamento",
            department="Vendas",
            host="https://loja.example.org",
        ),
    ),
    "ja-full-width-colon": (
        post(
            "新しいLivechatオフラインメッセージが送信されました:",
            "送信\N{FULLWIDTH COLON}: https://a.example",
            "訪問者の名前: 花子",
            "訪問者のメール: h@a.example",
            "部門: 営業",
            "メッセージ: こんにちは",
        ),
        "ja",
        result("花子", "h@a.example", "こんにちは", department="営業", host="https://a.example"),
    ),
    "he-english-but-for-message": (
        post(f"{HEADER}:", "Visitor Name: דנה", "Visitor E-mail: d@a.example", "Department: Sales", "הודעה: שלום"),
        "he",
        result("דנה", "d@a.example", "שלום", department="Sales"),
    ),
    "zh-HK-falls-back-to-zh": (
        post("已发送新 Livechat 离线消息:", "访客名称: 明", "访客电子邮件: m@a.example", "部: 一", "消息: 好"),
        "zh-HK",
        result("明", "m@a.example", "好", department="一"),
    ),
    "unknown-header": (build(header="Somebody wrote while nobody was there"), "en", result()),
}


@pytest.mark.parametrize(("text", "language", "expected"), TRANSLATED.values(), ids=TRANSLATED)
def test_translated_posts(text: str, language: str, expected: OfflineMessage) -> None:
    assert parse_offline_post(text, language) == expected


VALUES = {
    "name-not-sent": (build("undefined"), result(None)),
    "name-starts-with-line-feed": (build("\nVisitor E-mail: x@y"), result("\nVisitor E-mail: x@y")),
    "name-ends-with-blank": (build("Bob "), result("Bob ")),
    "name-is-a-label": (build("Visitor E-mail: x@y"), result("Visitor E-mail: x@y")),
    "email-without-at": (build(email="bob"), result(email="bob")),
    "email-empty": (build(email=""), result(email="")),
    "email-ends-with-blank": (build(email="b@c "), result(email="b@c ")),
    "department-starts-with-line-feed": (build(department="\nMessage: x"), result(department="\nMessage: x")),
    "text-ends-with-blanks": (build(message="hello  \n \n"), result(message="hello  \n \n")),
    "text-starts-with-line-feed": (build(message="\n\n hello"), result(message="\n\n hello")),
    "final-line-end-lost": (build(message="hello").removesuffix(" \n"), result()),
}


@pytest.mark.parametrize(("text", "expected"), VALUES.values(), ids=VALUES)
def test_values_are_kept_as_typed(text: str, expected: OfflineMessage) -> None:
    assert parse_offline_post(text, "en") == expected


TEXTS = {
    "message": "a \nMessage: b \nMessage: c",
    "message-first": "Message: a",
    "email-only": "a \nVisitor E-mail: fake@evil.example \nb",
    "email-and-message-apart": "a \nVisitor E-mail: fake@evil.example \nb \nMessage: c",
    "department": "a \nDepartment: Fake \nMessage: b",
    "name-and-host": "a \nSent from: x \nVisitor Name: y",
    "bare-line-feeds": "a\nVisitor E-mail: fake@evil.example\nMessage: b",
}


@pytest.mark.parametrize("message", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("department", [None, "Sales"])
def test_labels_in_the_text_are_text(message: str, department: str | None) -> None:
    text = build(message=message, department=department)
    assert parse_offline_post(text, "en") == result(message=message, department=department)


PASTED = {
    "email-and-message": "a \nVisitor E-mail: fake@evil.example \nMessage: b",
    "without-address": "a \nVisitor E-mail: x \nMessage: y",
    "email-department-message": "a \nVisitor E-mail: fake@evil.example \nDepartment: Fake \nMessage: b",
    "whole-post": build("Fake", "fake@evil.example", "b", host="x"),
    "in-the-first-line": "\nVisitor E-mail: fake@evil.example \nMessage: b",
}


@pytest.mark.parametrize("message", PASTED.values(), ids=PASTED)
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_post_pasted_into_the_text_does_not_change_the_sender(message: str, language: str) -> None:
    known = offline._load_labels()[language]
    text = build(message=message, labels={role: known[role][0] for role in ENGLISH})
    assert parse_offline_post(text, language) == result(message=message, doubtful=True)


FORGED = {
    "name-with-email": (
        build("Evil \nVisitor E-mail: fake@evil.example"),
        result("Evil \nVisitor E-mail: fake@evil.example", doubtful=True),
    ),
    "name-with-email-and-department": (
        build("Evil \nVisitor E-mail: fake@evil.example \nDepartment: Fake", department="Sales"),
        result("Evil \nVisitor E-mail: fake@evil.example \nDepartment: Fake", department="Sales", doubtful=True),
    ),
    "name-with-message": (build("Evil \nMessage: x"), result("Evil \nMessage: x", doubtful=True)),
    "name-with-department": (build("Evil \nDepartment: x"), result("Evil \nDepartment: x", doubtful=True)),
    "name-with-name": (
        build("Evil \nVisitor Name: x", host="h"),
        result("Evil \nVisitor Name: x", host="h", doubtful=True),
    ),
    "name-with-line-end": (build("Evil \nx"), result("Evil \nx", doubtful=True)),
    "name-with-text-first": (
        build("Evil \nMessage: x \nVisitor E-mail: fake@evil.example"),
        result("Evil \nMessage: x \nVisitor E-mail: fake@evil.example", doubtful=True),
    ),
    # The very same post as one with a pasted text, so it is read like that.
    "name-with-email-and-message": (
        build("Evil \nVisitor E-mail: fake@evil.example \nMessage: x"),
        result(
            "Evil",
            "fake@evil.example",
            "x \nVisitor E-mail: bob@client.example \nMessage: hello",
            doubtful=True,
        ),
    ),
    # Rocket.Chat refuses a sender without a domain unless told otherwise, so the address is the better reading.
    "name-with-email-that-is-no-address": (
        build("Evil \nVisitor E-mail: fake \nMessage: x"),
        result("Evil \nVisitor E-mail: fake \nMessage: x", doubtful=True),
    ),
    "host-with-name": (
        build(host="h \nVisitor Name: Evil"),
        result("Evil \nVisitor Name: Bob", host="h", doubtful=True),
    ),
    "host-with-line-end": (build(host="h \nx"), result(host="h \nx", doubtful=True)),
    "email-with-line-end": (
        build(email="bob@client.example \nx"),
        result(email="bob@client.example \nx", doubtful=True),
    ),
    "email-with-line-end-and-department": (
        build(email="b@c \nx", department="Sales \nEast"),
        result(email="b@c \nx", department="Sales \nEast", doubtful=True),
    ),
    "department-twice": (
        build(department="Sales \nDepartment: x"),
        result(department="Sales \nDepartment: x", doubtful=True),
    ),
}


@pytest.mark.parametrize(("text", "expected"), FORGED.values(), ids=FORGED)
def test_hand_made_requests_are_read_and_doubtful(text: str, expected: OfflineMessage) -> None:
    assert parse_offline_post(text, "en") == expected


UNKNOWN_LABELS = {
    "plain": (build(labels=INVENTED), result()),
    "many-lines": (build(message="a\nb\n\nc \nd", labels=INVENTED), result(message="a\nb\n\nc \nd")),
    "host": (build(host="https://a.example", labels=INVENTED), result(host="https://a.example")),
    "name-is-the-address": (
        build("b@c", "b@c", host="https://a.example", labels=INVENTED),
        result("b@c", "b@c", host="https://a.example", doubtful=True),
    ),
    "empty-name-and-text": (build("", message="", labels=INVENTED), result("", message="")),
    "department-or-text": (
        build(department="Sales", labels=INVENTED),
        result(department="Sales", doubtful=True),
    ),
    "text-with-label": (
        build(message="a \nPS: b", labels=INVENTED),
        result(department="a", message="b", doubtful=True),
    ),
    "all-lines": (
        build(host="https://a.example", department="Sales", labels=INVENTED),
        result(host="https://a.example", department="Sales", doubtful=True),
    ),
    "known-message": (build(message="a \nPS: b", labels=INVENTED | {"Message": "Mesaj"}), result(message="a \nPS: b")),
    "known-department-and-message": (
        build(department="Sales", labels=INVENTED | {"Department": "Odjel", "Message": "Poruka"}),
        result(department="Sales"),
    ),
    "known-name-and-email": (
        build(message="Message", labels=ENGLISH | {"Message": "Text"}),
        result(message="Message"),
    ),
}


@pytest.mark.parametrize(("text", "expected"), UNKNOWN_LABELS.values(), ids=UNKNOWN_LABELS)
def test_unknown_labels_are_read_by_the_form_of_the_lines(text: str, expected: OfflineMessage) -> None:
    assert parse_offline_post(text, "en") == expected


OTHER_POSTS = {
    "empty": "",
    "line-end": " \n",
    "header-only": f"{HEADER}: \n",
    "header-without-line-end": f"{HEADER}: ",
    "no-header": build().partition(" \n")[2],
    "text-after-the-header": build().replace(f"{HEADER}: ", f"{HEADER}: x"),
    "header-and-text": f"{HEADER}: \nhello \n",
    "no-name": f"{HEADER}: \nVisitor E-mail: a@b.example \nMessage: hello \n",
    "no-email": f"{HEADER}: \nVisitor Name: Bob \nMessage: hello \n",
    "no-message": f"{HEADER}: \nVisitor Name: Bob \nVisitor E-mail: a@b.example \n",
    "bare-line-feeds": build().replace(" \n", "\n"),
    "unknown-labels-and-no-address": build(email="bob", labels=INVENTED),
    "unknown-labels-and-no-final-line-end": build(labels=INVENTED).removesuffix(" \n"),
    "welcome": "Welcome to *Acme*! \nAsk in #general: somebody will help you. \n",
    "list": "Today: \n- alice: 3 chats \n- bob: 2 chats \n",
    "sentence": "alice was added by admin",
    "notice": "Update available: \nVersion: 6.13.0 \nhttps://go.example/releases \n",
}


@pytest.mark.parametrize("text", OTHER_POSTS.values(), ids=OTHER_POSTS)
@pytest.mark.parametrize("language", [None, "en", "de"])
def test_other_posts_are_not_offline_messages(text: str, language: str | None) -> None:
    assert parse_offline_post(text, language) is None


DOCUMENT = {
    "_id": "1",
    "rid": "2",
    "msg": build(),
    "groupable": False,
    "u": {"_id": "rocket.cat", "username": "rocket.cat"},
    "urls": [],
}
OTHER_DOCUMENTS: dict[str, dict[str, Any]] = {
    "by-an-agent": DOCUMENT | {"u": {"_id": "alice", "username": "alice"}},
    "author-with-name": DOCUMENT | {"u": {"_id": "rocket.cat", "username": "rocket.cat", "name": "Rocket.Cat"}},
    "author-missing": {key: value for key, value in DOCUMENT.items() if key != "u"},
    "author-is-text": DOCUMENT | {"u": "rocket.cat"},
    "system-message": DOCUMENT | {"t": "uj"},
    "groupable": DOCUMENT | {"groupable": True},
    "groupable-missing": {key: value for key, value in DOCUMENT.items() if key != "groupable"},
    "groupable-is-zero": DOCUMENT | {"groupable": 0},
    "text-missing": {key: value for key, value in DOCUMENT.items() if key != "msg"},
    "text-is-null": DOCUMENT | {"msg": None},
    "empty": {},
}


def test_the_document_of_an_offline_post_is_recognised() -> None:
    assert looks_like_offline_post(DOCUMENT)


@pytest.mark.parametrize("document", OTHER_DOCUMENTS.values(), ids=OTHER_DOCUMENTS)
def test_other_documents_are_not(document: dict[str, Any]) -> None:
    assert not looks_like_offline_post(document)


LABELS = tuple({text for labels in offline._load_labels().values() for texts in labels.values() for text in texts})
FRAGMENTS = st.lists(
    st.sampled_from([" ", "\n", "\r\n", " \n", ":", "a@b", "x", *(f"{label}: " for label in ENGLISH.values())])
).map("".join)
FREE = st.text() | st.text(alphabet=" \n:@x") | FRAGMENTS
ONE_LINE = FREE.filter(lambda text: " \n" not in text and text != "undefined")
PLAIN_TEXT = FREE.filter(lambda text: not any(line.startswith(LABELS) for line in text.split("\n")))
DEPARTMENT = st.none() | PLAIN_TEXT.filter(lambda text: " \n" not in text)
ADDRESS = st.from_regex(r"[^\s@]{1,20}@[^\s@]{1,20}", fullmatch=True)
LANGUAGE = st.sampled_from(["en", "de", "fr", "ja", "pt-BR", "uk"])


def labels_in(language: str) -> dict[str, str]:
    known = offline._load_labels()
    return {role: (known[language].get(role) or known["en"][role])[0] for role in ENGLISH}


@settings(deadline=None)
@given(
    language=LANGUAGE,
    name=ONE_LINE,
    email=ADDRESS,
    message=PLAIN_TEXT,
    department=DEPARTMENT,
    host=st.none() | ONE_LINE,
)
def test_what_the_widget_can_send_comes_back_unchanged(
    *, language: str, name: str, email: str, message: str, department: str | None, host: str | None
) -> None:
    text = build(name, email, message, department=department, host=host, labels=labels_in(language))
    assert parse_offline_post(text, language) == result(name, email, message, department=department, host=host)


@settings(deadline=None)
@given(ONE_LINE, ADDRESS, FREE, st.none() | ONE_LINE)
def test_no_text_changes_the_sender(name: str, email: str, message: str, department: str | None) -> None:
    parsed = parse_offline_post(build(name, email, message, department=department), "en")
    assert parsed is not None
    assert (parsed.name, parsed.email, parsed.message, parsed.department) == (name, email, message, department)


@settings(deadline=None)
@given(FREE, ADDRESS, FREE, st.none() | ONE_LINE, st.none() | FREE)
def test_whatever_is_read_in_another_way_is_doubtful(
    name: str, email: str, message: str, department: str | None, host: str | None
) -> None:
    parsed = parse_offline_post(build(name, email, message, department=department, host=host), "en")
    assert parsed is not None
    expected = result(None if name == "undefined" else name, email, message, department=department, host=host)
    assert parsed.doubtful or parsed == expected


@settings(deadline=None)
@given(st.sampled_from(["", f"{HEADER}: \n", f"{HEADER}: \nVisitor Name: "]), FREE, st.none() | st.text())
def test_no_text_raises(start: str, rest: str, language: str | None) -> None:
    parse_offline_post(start + rest, language)
