"""Secrets in text that a patch would add: few patterns, strong ones, and what is found is never shown whole.

Tokens that say what they are by their own beginning, private keys, and long random values assigned to a name that says
it is secret. A whole scan is the scanner's work; this is the last look before a person takes the patch.
"""

import re
from collections import Counter
from collections.abc import Iterator
from math import log2

LINE_BYTES = 64 * 1024  # what is looked at at once; longer lines in overlapping pieces
OVERLAP = 512
BITS = 3.5  # of entropy per character, from which on a value counts as random

KNOWN = [
    (re.compile(pattern), what)
    for pattern, what in (
        (rb"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----", "a private key"),
        (rb"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", "an AWS access key id"),
        (rb"\bgh[pousr]_[A-Za-z0-9]{36,255}\b", "a GitHub token"),
        (rb"\bgithub_pat_[A-Za-z0-9_]{22,255}\b", "a GitHub token"),
        (rb"\bglpat-[A-Za-z0-9_-]{20,255}", "a GitLab token"),
        (rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,255}", "a Slack token"),
        (rb"hooks\.slack\.com/services/T[A-Z0-9]{6,14}/B[A-Z0-9]{6,14}/[A-Za-z0-9]{20,30}", "a Slack webhook"),
        (rb"\b[sr]k_live_[A-Za-z0-9]{16,255}\b", "a Stripe key"),
        (rb"\bsk-ant-[A-Za-z0-9_-]{20,255}", "an Anthropic key"),
        (rb"\bsk-(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{0,200}[A-Za-z0-9]{20,255}\b", "an OpenAI-style key"),
        (rb"\bAIza[A-Za-z0-9_-]{35}", "a Google API key"),
        (rb"\bGOCSPX-[A-Za-z0-9_-]{28}", "a Google OAuth secret"),
        (rb"\bnpm_[A-Za-z0-9]{36}\b", "an npm token"),
        (rb"\bpypi-AgEI[A-Za-z0-9_-]{50,255}", "a PyPI token"),
        (rb"\bhf_[A-Za-z0-9]{34}\b", "a Hugging Face token"),
        (rb"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{30,64}", "a SendGrid key"),
        (rb"\bdop_v1_[a-f0-9]{64}\b", "a DigitalOcean token"),
        (rb"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b", "a Shopify token"),
        (rb"\bAccountKey=[A-Za-z0-9+/]{60,100}={0,2}", "an Azure storage key"),
        (rb"\bhv[sb]\.[A-Za-z0-9_-]{24,255}", "a Vault token"),
        (rb"\beyJ[A-Za-z0-9_-]{10,400}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{20,700}", "a signed token (JWT)"),
    )
]
NAMED = re.compile(
    rb"(?i)(?:secret|passwd|password|passphrase|token|api_?-?key|access_?-?key|private_?-?key|auth_?-?key|credential)"
    rb"[\w.-]{0,40}[\"'\]]{0,2}\s{0,8}(?::=|=>|=|:)\s{0,8}[\"'`]?([A-Za-z0-9+/_.~=@!#%^&*-]{16,512})"
)
STAND_IN = re.compile(
    rb"(?i)example|sample|dummy|changeme|change_me|placeholder|xxxx|your[_-]|test|fake|redacted|1234567"
)
CALL = re.compile(rb"^[A-Za-z_][\w.]*$")  # an identifier: it names a value and is none


def secrets_in(line: bytes) -> Iterator[tuple[bytes, str]]:
    """The secrets in a line, each with what it is. Every value is given once."""
    told: set[bytes] = set()
    for start in range(0, max(len(line), 1), LINE_BYTES - OVERLAP):
        for value, what in _secrets(line[start : start + LINE_BYTES]):
            if not any(value in each for each in told):
                told.add(value)
                yield value, what


def masked(value: bytes, what: str) -> str:
    """What may be shown of a secret: what it is, how it begins, and how long it is."""
    if value.startswith(b"-----"):
        return what
    return f"{what} ({value[:4].decode('ascii', 'replace')}…, {len(value)} characters)"


def _secrets(text: bytes) -> Iterator[tuple[bytes, str]]:
    for pattern, what in KNOWN:
        for match in pattern.finditer(text):
            if b"EXAMPLE" not in match[0]:  # as in the providers' own documentation
                yield match[0], what
    for match in NAMED.finditer(text):
        value = match[1]
        if _is_random(value) and not STAND_IN.search(value):
            yield value, "a random value with the name of a secret"


def _is_random(value: bytes) -> bool:
    if CALL.match(value) and not any(48 <= each <= 57 for each in value):
        return False
    counts = Counter(value)
    return -sum(count / len(value) * log2(count / len(value)) for count in counts.values()) >= BITS
