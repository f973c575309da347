# ruff: noqa: RUF001  (letters of other alphabets that look like Latin ones are meant)
"""What visitors and agents say: short conversations in several languages, and who says it.

Nothing a visitor says looks like a telephone number or an e-mail address, so no text is a lead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Conversation:
    """Lines are `v:` (visitor) or `a:` (agent) and the text; the first one is the visitor's."""

    visitor: str
    subject: str
    tags: tuple[str, ...]
    lines: tuple[str, ...]
    thanks: str


@dataclass(frozen=True, slots=True)
class OfflineMessage:
    """What somebody leaves when nobody is there; `host` is the page, where the form sent it."""

    name: str
    email: str
    host: str | None
    text: str


CONVERSATIONS = (
    Conversation(
        "Vera Lindqvist",
        "Invoice billed twice",
        ("billing", "refund"),
        (
            "v:Hello, is anybody there?",
            "v:My invoice **#4711** is wrong 🙁",
            "a:Hi Vera, let me look.",
            "a:It was billed twice, indeed.",
            "v:Can you refund it?",
            "a:Done: you get the money back in 3 days.",
            "v:That was quick, wow",
            "a:You are welcome. Anything else?",
        ),
        "thanks a lot! 👍",
    ),
    Conversation(
        "Jürgen Weißkopf",
        "Lieferung fehlt",
        ("versand",),
        (
            "v:Guten Tag, mein Paket ist seit einer Woche unterwegs 📦",
            "a:Guten Tag Herr Weißkopf, ich prüfe das sofort.",
            "a:Es liegt im Zustelldepot und kommt morgen.",
            "v:Geht auch übermorgen? Morgen bin ich nicht da.",
            "a:Ja, ich habe es geändert: übermorgen zwischen 9 und 12 Uhr.",
            "v:Prima, das passt.",
        ),
        "Danke schön!",
    ),
    Conversation(
        "Conceição Araújo",
        "Senha não funciona",
        ("login", "senha"),
        (
            "v:Olá! Não consigo entrar na minha conta 😕",
            "a:Olá Conceição! Que mensagem aparece?",
            "v:Diz «sessão expirada», sempre.",
            "a:Limpei as sessões antigas. Tente outra vez, por favor.",
            "v:Funcionou à primeira!",
        ),
        "Obrigada pela ajuda ❤️",
    ),
    Conversation(
        "Íñigo Núñez",
        "Cambio de talla",
        ("cambios",),
        (
            "v:¿Hola? Quería cambiar la talla de un pedido.",
            "a:¡Buenas, Íñigo! ¿Cuál es el número del pedido?",
            "v:Es el A-88, pedí la M y necesito la L 👕",
            "a:Perfecto, la L sale hoy mismo.",
            "v:¿Y la devolución cuesta algo?",
            "a:No, es gratis.",
        ),
        "¡Muchas gracias! 😀",
    ),
    Conversation(
        "Maëlle Lefèvre",
        "Panne du réseau",
        ("réseau", "urgent"),
        (
            "v:Bonjour, plus rien ne marche depuis ce matin…",
            "a:Bonjour Maëlle, quel voyant est allumé sur la box ?",
            "v:Le rouge, à gauche 🔴",
            "a:Je la redémarre à distance, un instant.",
            "v:Ça clignote… vert ! 🟢",
            "a:C'est rétabli.",
        ),
        "Merci beaucoup, bonne journée",
    ),
    Conversation(
        "山田 太郎",
        "領収書の再発行",
        ("領収書",),
        (
            "v:こんにちは。領収書をもう一度いただけますか？",
            "a:こんにちは、山田様。ご注文番号をお願いいたします。",
            "v:B-12です 🙏",
            "a:再発行しました。マイページからご覧ください。",
            "v:確認できました。",
        ),
        "ありがとうございました",
    ),
    Conversation(
        "ليلى حداد",
        "موعد التسليم",
        ("تسليم",),
        (
            "v:مرحبا، متى يصل طلبي؟",
            "a:أهلا ليلى، سأتحقق الآن.",
            "a:يصل غدا صباحا إن شاء الله.",
            "v:ممتاز 👏",
        ),
        "شكرا جزيلا",
    ),
    Conversation(
        "Zażółć Gęślą",
        "Reklamacja",
        ("reklamacja",),
        (
            "v:Dzień dobry, kubek przyszedł stłuczony 😢",
            "a:Dzień dobry, bardzo przepraszamy. Wyślemy nowy.",
            "v:Kiedy mogę się go spodziewać?",
            "a:W piątek.",
            "v:Świetnie.",
        ),
        "Dziękuję",
    ),
    Conversation(
        "Оксана Шевченко",
        "Зміна тарифу",
        ("тариф",),
        (
            "v:Добрий день! Хочу змінити тариф 🇺🇦",
            "a:Добрий день, Оксано. На який саме?",
            'v:На "Родинний" <b>без</b> реклами \\ та з `API`',
            "a:Готово, діє з першого числа.",
            "v:Чудово 👩‍👩‍👧‍👦",
        ),
        "Дякую!",
    ),
    Conversation(
        "Anonymous O'Neil",
        "Opening hours",
        (),
        (
            "v:hi",
            "v:when do you open on saturday\nand on sunday?",
            "a:Saturday 10 to 16, closed on Sunday.",
            "v:ok",
        ),
        "bye",
    ),
)

OFFLINE = (
    OfflineMessage("Olga Offline", "olga@client.example", "https://shop.acme.example/pricing", "Please call me back"),
    OfflineMessage("Évangéline Müller", "e.muller@client.example", None, "Bonjour,\nvos horaires d'été ?\n\nMerci 🙏"),
    OfflineMessage("佐藤 花子", "hanako@client.example", "https://shop.acme.example", "在庫はありますか？ 😊"),
    OfflineMessage("Multi Line", "multi@client.example", None, "Message: not a label\nsecond line\nthird line"),
    OfflineMessage("João Sério", "joao@client.example", "https://shop.acme.example/pt", "Quero um orçamento até sexta"),
)

CHANNEL = (
    "Pizza at 12? @erin @all",
    "the staging server is down again 🔥",
    "I serve a customer, later",
    "deployed 7.10, all green ✅",
    "who has the key of the meeting room?",
    "leo@b.example 5555-1234 looks like a lead but is not",
)

FILES = {
    "écran 1 (copie).png": "image/png",
    "log.txt": "text/plain",
    "Foto della ricevuta.jpg": "image/jpeg",
    "manual.pdf": "application/pdf",
}
