"""What is known is found in every usual form, whole or in pieces, and the rest of the text stays as it was."""

import base64
import html
import json
import random
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from core.redaction.reading import Plain, plain
from core.redaction.redactor import Redactor
from core.redaction.strainer import Strainer, TextStrainer

TOKEN = "sk-live-4fGh7Kq2Zp9XvB3n"
HARD = "p/a+s=s\"w&o<r>d '%41\\n ä𝄞 1;"
PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\nq3Zk1x0m9Zl8yTt2\n-----END"
WRITERS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "JSON": json.dumps,
    "JSON, not only ASCII": lambda value: json.dumps(value, ensure_ascii=False),
    "JSON in JSON": lambda value: json.dumps({"said": json.dumps([value])}),
    "JSON with escaped slashes": lambda value: json.dumps(value).replace("/", "\\/"),
    "JSON as .NET writes it": lambda value: "".join(
        each
        if each.isalnum() and each.isascii()
        else json.dumps(each)[1:-1]
        if ord(each) > 127
        else f"\\u{ord(each):04X}"
        for each in value
    ),
    "a URL": lambda value: quote(value, safe=""),
    "a URL that keeps slashes": quote,
    "a URL as a browser writes it": lambda value: quote(value, safe="!~*'()"),
    "a URL in small letters": lambda value: "".join(f"%{each:02x}" for each in value.encode()),
    "a form": quote_plus,
    "a URL in JSON in a URL": lambda value: quote(json.dumps({"next": quote(value)})),
    "HTML": html.escape,
    "HTML by numbers": lambda value: "".join(f"&#{ord(each)};" for each in value),
    "HTML by hexadecimal numbers": lambda value: "".join(f"&#x{ord(each):X};" for each in value),
    "hexadecimal": lambda value: value.encode().hex(),
    "hexadecimal in capitals": lambda value: value.encode().hex().upper(),
    "backwards": lambda value: value[::-1],
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 of user and value": lambda value: "Basic " + base64.b64encode(f"me:{value}".encode()).decode(),
    "base64 behind a longer name": lambda value: base64.b64encode(f"user:{value}@host".encode()).decode(),
    "base64 for URLs, without padding": lambda value: (
        base64.urlsafe_b64encode(f"x{value}".encode()).decode().rstrip("=")
    ),
    "base64 in a URL": lambda value: quote(base64.b64encode(f"?>{value}".encode()).decode(), safe=""),
    "base64 in lines": lambda value: base64.encodebytes(b"#" * 41 + value.encode() * 2).decode(),
    "base64 in indented lines of JSON": lambda value: json.dumps(
        base64.encodebytes(b"#" * 41 + value.encode()).decode().replace("\n", "\r\n    ")
    ),
}
MARK = "[secret it]"


def knowing(*values: str) -> Redactor:
    redactor = Redactor()
    for each in values:
        redactor.learn("it", each.encode())
    return redactor


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("value", [TOKEN, HARD, PEM], ids=["token", "hard", "pem"])
def test_a_value_is_found_as_every_writer_writes_it(value: str, writer: str) -> None:
    written = WRITERS[writer](value)
    redacted = knowing(value).redact_text(f"before ~{written}~ behind")
    assert redacted.startswith("before ~")
    assert redacted.endswith("~ behind")
    assert MARK in redacted
    core = value.strip()[4:-4]
    assert WRITERS[writer](core)[6:-6] not in redacted
    assert knowing(value).redact_text(redacted) == redacted


@pytest.mark.parametrize("writer", [each for each in WRITERS if each.startswith("JSON") and "NET" not in each])
def test_json_stays_json(writer: str) -> None:
    for value in (TOKEN, HARD, PEM, "nabcdefgh", "u0041bcdef", 'say"hello"you', "backslash at end\\"):
        text = json.dumps(
            {"a": [f"line\n{value}", value, f"\\{value}\\"], "b": WRITERS[writer](value)}, ensure_ascii=False
        )
        redacted = knowing(value).redact_text(text)
        assert MARK in redacted
        assert value not in json.loads(redacted)["a"][1]


def test_every_split_of_a_stream_gives_the_same() -> None:
    redactor = knowing(HARD)
    for name, write in WRITERS.items():
        data = f"100% sure\n p/a {write(HARD)} & so on \\ p".encode()
        whole = redactor.redact(data)
        assert MARK.encode() in whole, name
        for at in range(1, len(data)):
            strainer = Strainer(redactor)
            assert strainer.feed(data[:at]) + strainer.feed(data[at:]) + strainer.flush() == whole, (name, at)
        strainer = Strainer(redactor)
        bytewise = b"".join(strainer.feed(data[at : at + 1]) for at in range(len(data)))
        assert bytewise + strainer.flush() == whole, name
        assert {hit.name for hit in strainer.hits} == {"it"}
        assert all(data[hit.offset - 1 : hit.offset] and hit.end <= len(data) for hit in strainer.hits)


def test_a_stream_of_ordinary_words_is_not_held_back() -> None:
    strainer = TextStrainer(knowing(TOKEN, HARD))
    for word in ["These", "are", "100", "%", "ordinary", "words,", "&", "they", "flow:", "äöü\n"][:-1]:
        assert strainer.feed(word + " ") == word + " "
    assert strainer.feed("sk-") == ""
    assert strainer.feed("ill") == "sk-ill"
    assert strainer.flush() == ""


def test_values_without_end_do_not_fill_the_memory() -> None:
    redactor = knowing("a" * 8)
    strainer = Strainer(redactor)
    held = 0
    for _ in range(200):
        strainer.feed(b"a" * 64)
        held = max(held, len(strainer._held))
    assert held < 4 * redactor.longest
    strainer.feed(b"b")
    assert b"a" * 8 not in strainer.flush()


def test_of_two_that_overlap_nothing_is_left() -> None:
    redactor = Redactor()
    redactor.learn("address", b"postgres://me:secret-word@host/base")
    redactor.learn("word", b"secret-word")
    redactor.learn("tail", b"word@host/base/more")
    assert redactor.redact(b"<postgres://me:secret-word@host/base/more>") == b"<[secret address]>"
    assert redactor.redact(b"<secret-word>") == b"<[secret word]>"


@pytest.mark.parametrize("size", [500, 600, 5000, 60_000])
def test_a_long_value_is_one_find_and_a_part_of_it_is_found(size: int) -> None:
    chance = random.Random(size)
    value = "".join(chance.choices(string.ascii_letters + 'äöü𝄞 "\n/+', k=size))
    redactor = knowing(value)
    assert redactor.longest < 20_000
    for write in (str, json.dumps, quote_plus):
        assert redactor.redact_text(f"<{write(f'a{value}z')}>") == f"<{write(f'a{MARK}z')}>".replace(
            "%5Bsecret+it%5D", MARK
        )
    data = f"x{value}x".encode()
    strainer = Strainer(redactor)
    pieces = [strainer.feed(data[at : at + 97]) for at in range(0, len(data), 97)]
    assert b"".join([*pieces, strainer.flush()]).replace(MARK.encode(), b"") == b"xx"
    if size > 600:
        assert MARK in redactor.redact_text(f"<{value[1000:1500]}>")
        redactor.redact_text(value.encode()[1000:1501].decode("utf-8", "ignore"))


def test_a_value_that_is_no_text_leaves_text() -> None:
    redactor = Redactor()
    redactor.learn("it", "äöüäöüäöü".encode()[1:-1])
    redactor.redact_text("äöüäöüäöü").encode()


def test_what_is_forgotten_may_be_said_again_and_what_is_left_may_not() -> None:
    redactor = knowing(TOKEN)
    redactor.learn("other", b"another-value")
    redactor.forget("it")
    assert redactor.redact_text(f"{TOKEN} another-value") == f"{TOKEN} [secret other]"
    redactor.forget("other")
    assert redactor.is_empty
    redactor.learn("it", TOKEN.encode())
    assert redactor.redact_text(TOKEN) == MARK


def test_two_versions_of_a_name_are_both_known() -> None:
    redactor = knowing("version-one-1", "version-two-2")
    assert redactor.redact_text("version-one-1 version-two-2") == f"{MARK} {MARK}"


def test_what_is_short_is_not_learnt() -> None:
    assert knowing("1234567").is_empty
    assert not knowing("12345678").is_empty


def test_a_name_cannot_break_what_it_is_put_into() -> None:
    redactor = Redactor()
    redactor.learn('a"b\\c\n]', TOKEN.encode())
    assert json.loads(redactor.redact_text(json.dumps([TOKEN]))) == ["[secret a_b_c__]"]


def test_a_hit_says_where_and_how() -> None:
    data = f"ab {base64.b64encode(TOKEN.encode()).decode()} {TOKEN}".encode()
    first, second = knowing(TOKEN).scan(data)
    assert (first.encoding, first.offset) == ("base64", 3)
    assert (second.encoding, data[second.offset : second.end]) == ("raw", TOKEN.encode())


def test_many_are_learnt_one_by_one_and_none_is_missed() -> None:
    chance = random.Random(7)
    redactor = Redactor()
    values = ["".join(chance.choices(string.ascii_letters + string.digits + "+/", k=24)) for _ in range(700)]
    for number, value in enumerate(values):
        redactor.learn(f"n{number}", value.encode())
        if number % 50 == 0:
            redactor.forget(f"n{number // 2}")
    forgotten = {number // 2 for number in range(0, 700, 50)}
    for number, value in enumerate(values):
        assert (redactor.redact_text(quote_plus(value)) == f"[secret n{number}]") == (number not in forgotten)


def test_both_ways_to_undo_escapes_say_the_same() -> None:
    chance = random.Random(11)
    parts = [
        "\\",
        "\\\\",
        "u0041",
        "\\u00e4",
        "\\ud834\\udd1e",
        "%",
        "%41",
        "%5cn",
        "&",
        "&amp;",
        "&#65;",
        "&#x41;",
        "n",
        "\n ",
        "\r",
        "a",
    ]
    for _ in range(3000):
        data = "".join(chance.choices(parts, k=chance.randrange(12))).encode()
        way = Plain(data)
        assert way.data == plain(data)
        for at in range(len(way.data)):
            start, end = way.source(at, at + 1)
            assert 0 <= start < end <= len(data)
