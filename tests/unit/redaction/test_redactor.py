"""What is known is found in every usual form, whole or in pieces, and the rest of the text stays as it was."""

import base64
import html
import json
import random
import string
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import pytest

from core.redaction.reading import Plain, plain
from core.redaction.redactor import Hit, Redactor
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
    for value in (TOKEN, HARD, PEM, "nabcdefg7", "u0041bcdef", 'say"hello"you', "backslash at end\\"):
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
    redactor = knowing("7" * 8)
    strainer = Strainer(redactor)
    held = 0
    for _ in range(200):
        strainer.feed(b"7" * 64)
        held = max(held, len(strainer._held))
    assert held < 4 * redactor.longest
    strainer.feed(b"b")
    assert b"7" * 8 not in strainer.flush()


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


def cost(work: Callable[[], object]) -> float:
    """Seconds of this thread's own computing: the least of a few."""
    times = []
    for _ in range(5):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return min(times)


def test_looking_for_escapes_takes_as_long_as_the_text_is() -> None:
    redactor = knowing("".join(random.Random(3).choices(string.ascii_letters, k=500)))

    def fed(size: int) -> Callable[[], object]:
        data = b"\\" * size + b"z"
        return lambda: Strainer(redactor).feed(data)

    fed(10)()
    assert redactor.longest >= 12_000
    assert cost(fed(12_000)) < 80 * cost(fed(750)), "16 times the text; the square of that is 256"


class Counting(Redactor):
    """One that counts the bytes it looks at."""

    looked = 0

    def scan(self, data: bytes, *, binary: bool = False) -> list[Hit]:
        self.looked += len(data)
        return super().scan(data, binary=binary)


def test_small_pieces_are_gathered_where_much_is_held_back() -> None:
    redactor = Counting()
    redactor.learn("it", TOKEN.encode())
    strainer = Strainer(redactor)
    data = b"\n" + b" " * 12_000 + f"{TOKEN}.".encode()
    told = b"".join([strainer.feed(data[at : at + 2]) for at in range(0, len(data), 2)]) + strainer.flush()
    assert told == redactor.redact(data)
    assert redactor.looked < 20 * len(data)


def test_one_more_value_does_not_sort_all_others_again() -> None:
    redactor = Redactor()
    redactor.learn_all((f"n{each}", f"value-{each:08}-{each * each}".encode()) for each in range(300))
    redactor.begins_at(b"ready?")
    large = redactor._automata[-1]
    built = large._beginnings
    redactor.learn("it", TOKEN.encode())
    assert redactor.begins_at(f"12{TOKEN[:7]}".encode()) == 2
    assert redactor.begins_at(b"12value-0000") == 2
    assert redactor._automata[-1] is large
    assert large._beginnings is built


def test_who_has_learnt_a_value_can_rely_on_it_while_another_thread_learns_more() -> None:
    redactor = Redactor()
    waits, goes_on = threading.Event(), threading.Event()

    def many() -> Iterator[tuple[str, bytes]]:
        yield "it", TOKEN.encode()
        waits.set()
        assert goes_on.wait(30)
        yield "other", b"another-value-2"

    other = threading.Thread(target=redactor.learn_all, args=(many(),))
    other.start()
    try:
        assert waits.wait(30)
        redactor.learn("it", TOKEN.encode())
        assert redactor.redact_text(TOKEN) == MARK
    finally:
        goes_on.set()
        other.join()
    assert redactor.redact_text(f"{TOKEN} another-value-2") == f"{MARK} [secret other]"
    assert len(redactor.scan(TOKEN.encode())) == 1


def test_the_text_in_an_archive_is_read_as_text() -> None:
    redactor = knowing(HARD)
    for name in ("JSON", "JSON as .NET writes it", "a URL", "HTML by numbers", "JSON in JSON"):
        written = WRITERS[name](HARD).encode()
        data = bytes(100) + written + bytes(40) + b"\xff\0% \\n" + written + b"\0"
        strainer = Strainer(redactor)
        told = strainer.feed(data) + strainer.flush()
        assert told.count(MARK.encode()) == 2, name
        assert (told[:100], told[-1:]) == (bytes(100), b"\0")
        for at in range(1, len(data), 7):
            strainer = Strainer(redactor)
            assert strainer.feed(data[:at]) + strainer.feed(data[at:]) + strainer.flush() == told, (name, at)


def pem(kind: str, *lines: str) -> str:
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----\n"))


def test_what_every_key_file_has_is_not_taken_for_the_key() -> None:
    chance = random.Random(5)
    alike = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW"
    own, other, chain = ("".join(chance.choices(string.ascii_letters + string.digits, k=70)) for _ in range(3))
    issuer = pem("CERTIFICATE", *[chain[at:] + chain[:at] for at in range(20)])
    redactor = knowing(
        pem("OPENSSH PRIVATE KEY", alike, own), pem("PRIVATE KEY", own) + issuer, f"notes\n{'=' * 60}\n1"
    )
    for text in (pem("OPENSSH PRIVATE KEY", alike, other), issuer, "=" * 80, f"{chain}\n", pem("PRIVATE KEY", "")):
        assert redactor.redact_text(text) == text
    assert redactor.redact_text(f"{own}.") == f"{MARK}."
    service = json.dumps({"type": "account", "private_key": pem("PRIVATE KEY", alike, own)})
    assert knowing(service).redact_text(f"{own} {alike}") == f"{MARK} {MARK}"


def test_a_plain_word_is_not_learnt() -> None:
    words = ("operator", "cancelled", "web.fetch", "requests_per_m", "sha256:0")
    assert [each for each in words if not knowing(each).is_empty] == []
    assert [each for each in ("operator1", "operator-of-x", "operatoroperator") if knowing(each).is_empty] == []
