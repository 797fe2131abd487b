"""Secrets in text that a patch would add: few patterns, strong ones, and what is found is never shown whole.

Tokens that say what they are by their own beginning, private keys, and long random values assigned to a name that says
it is secret. A whole scan is the scanner's work; this is the last look before a person takes the patch.
"""

import re
from collections import Counter
from collections.abc import Iterator
from math import log2

PIECE_BYTES = 64 * 1024  # what is looked at at once; the pieces overlap
OVERLAP = 4096  # the longest secret is shorter
BITS = 3.5  # of entropy per character, from which on a value counts as random

KNOWN = [
    (needle, re.compile(pattern), what)
    for needle, pattern, what in (
        (b"PRIVATE KEY", rb"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----", "a private key"),
        *(
            (each, rb"\b%s[A-Z2-7]{16}\b" % each, "an AWS access key id")
            for each in (b"AKIA", b"ASIA", b"ABIA", b"ACCA")
        ),
        (b"gh", rb"\bgh[pousr]_[A-Za-z0-9]{36,255}\b", "a GitHub token"),
        (b"github_pat_", rb"\bgithub_pat_[A-Za-z0-9_]{22,255}\b", "a GitHub token"),
        (b"glpat-", rb"\bglpat-[A-Za-z0-9_-]{20,255}", "a GitLab token"),
        (b"xox", rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,255}", "a Slack token"),
        (b"hooks.slack", rb"hooks\.slack\.com/services/T\w{6,14}/B\w{6,14}/\w{20,30}", "a Slack webhook"),
        (b"k_live_", rb"\b[sr]k_live_[A-Za-z0-9]{16,255}\b", "a Stripe key"),
        (b"sk-ant-", rb"\bsk-ant-[A-Za-z0-9_-]{20,255}", "an Anthropic key"),
        (b"sk-", rb"\bsk-[A-Za-z0-9_-]{20,255}", "an OpenAI-style key"),
        (b"AIza", rb"\bAIza[A-Za-z0-9_-]{35}", "a Google API key"),
        (b"GOCSPX-", rb"\bGOCSPX-[A-Za-z0-9_-]{28}", "a Google OAuth secret"),
        (b"npm_", rb"\bnpm_[A-Za-z0-9]{36}\b", "an npm token"),
        (b"pypi-", rb"\bpypi-AgEI[A-Za-z0-9_-]{50,255}", "a PyPI token"),
        (b"hf_", rb"\bhf_[A-Za-z0-9]{34}\b", "a Hugging Face token"),
        (b"SG.", rb"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{30,64}", "a SendGrid key"),
        (b"dop_v1_", rb"\bdop_v1_[a-f0-9]{64}\b", "a DigitalOcean token"),
        (b"shp", rb"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b", "a Shopify token"),
        (b"AccountKey=", rb"\bAccountKey=[A-Za-z0-9+/]{60,100}={0,2}", "an Azure storage key"),
        (b"hv", rb"\bhv[sb]\.[A-Za-z0-9_-]{24,255}", "a Vault token"),
        (b"eyJ", rb"\beyJ[\w-]{10,400}\.eyJ[\w-]{10,2000}\.[\w-]{20,700}", "a signed token (JWT)"),
    )
]
AMBIGUOUS = frozenset({b"sk-"})  # names begin so, too: only what is random counts
NAMES = (b"secret", b"passw", b"passphrase", b"token", b"key", b"credential")
NAMED = re.compile(
    rb"(?:secret|passwd|password|passphrase|token|api_?-?key|access_?-?key|private_?-?key|auth_?-?key|credential)"
    rb"[\w.-]{0,40}[\"'\]]{0,2}[ \t]{0,8}(?::=|=>|=|:)[ \t]{0,8}[\"'`]?([a-z0-9+/_.~=@!#%^&*-]{16,512})"
)  # in lower case
STAND_IN = re.compile(
    rb"(?i)example|sample|dummy|changeme|change_me|placeholder|xxxx|your[_-]|test|fake|redacted|1234567"
)
DIGITS = b"0123456789"
CALL = re.compile(rb"^[A-Za-z_][\w.]*$")  # an identifier: it names a value and is none


def secrets_in(text: bytes) -> Iterator[tuple[bytes, str]]:
    """The secrets in a text, each with what it is. Every value is given once."""
    told: set[bytes] = set()
    for start in range(0, max(len(text), 1), PIECE_BYTES - OVERLAP):
        for value, what in _secrets(text[start : start + PIECE_BYTES]):
            if not any(value in each for each in told):
                told.add(value)
                yield value, what


def masked(value: bytes, what: str) -> str:
    """What may be shown of a secret: what it is, how it begins, and how long it is."""
    if value.startswith(b"-----"):
        return what
    return f"{what} ({value[:4].decode('ascii', 'replace')}…, {len(value)} characters)"


def covered(text: bytes) -> bytes:
    """`text` with the secrets in it cut to their first characters."""
    for value, _ in list(secrets_in(text)):
        if not value.startswith(b"-----"):
            text = text.replace(value, value[:4] + "…".encode())
    return text


def _secrets(text: bytes) -> Iterator[tuple[bytes, str]]:
    for needle, pattern, what in KNOWN:
        if needle in text:
            for match in pattern.finditer(text):
                if b"EXAMPLE" in match[0] or (needle in AMBIGUOUS and not _is_random(match[0])):
                    continue  # as in the providers' own documentation, or a name
                yield match[0], what
    lower = text.lower()
    if any(each in lower for each in NAMES):
        for match in NAMED.finditer(lower):
            value = text[match.start(1) : match.end(1)]
            if _is_random(value) and not STAND_IN.search(value):
                yield value, "a random value with the name of a secret"


def _is_random(value: bytes) -> bool:
    if not any(each in DIGITS for each in value) or (CALL.match(value) and value.islower()):
        return False
    counts = Counter(value)
    return -sum(count / len(value) * log2(count / len(value)) for count in counts.values()) >= BITS
