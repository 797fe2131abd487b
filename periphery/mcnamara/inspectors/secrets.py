"""Secrets by shapes that leave little doubt: a second opinion on betterleaks, and some that it does not know."""
# ruff: noqa: E501  a table is read one rule a line

import re
from collections.abc import Iterator
from dataclasses import replace

from periphery.mcnamara.findings import SECRET, Confidence, Hit, Level
from periphery.mcnamara.inspectors.rules import Pattern, apply
from periphery.mcnamara.inventory import File
from periphery.mcnamara.scanner import Canary

FIX = "Revoke it at its provider, issue a new one and keep that in a secret store; removing the line is not enough."
PLACEHOLDER = re.compile(
    r"x{4}|\*{3}|\.{3}|<|>|\$|\{|example|changeme|placeholder|your[-_]|dummy|sample|redacted|0{8}|1234567", re.I
)


def _secret(name: str, expression: str, severity: Level = "critical", confidence: Confidence = "high") -> Pattern:
    message = f"A credential is written here: {name.replace('-', ' ')}."
    return Pattern(f"secret.{name}", severity, SECRET, expression, message, FIX, None, confidence)


PATTERNS = (
    _secret("aws-access-token", r"(?<![A-Z0-9])(?P<secret>(?:AKIA|ASIA)[A-Z2-7]{16})(?![A-Z0-9])"),
    _secret("github-pat", r"\b(?P<secret>gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})\b"),
    _secret("gitlab-pat", r"\b(?P<secret>glpat-[A-Za-z0-9_-]{20})\b"),
    _secret("slack-token", r"\b(?P<secret>xox[abeprs]-\d{8,14}-[A-Za-z0-9-]{16,80})"),
    _secret("slack-webhook-url", r"(?P<secret>https://hooks\.slack\.com/services/T\w{8,12}/B\w{8,12}/\w{24})"),
    _secret("stripe-access-token", r"\b(?P<secret>[rs]k_live_[A-Za-z0-9]{20,99})\b"),
    _secret("openai-api-key", r"\b(?P<secret>sk-(?:proj-|svcacct-)?[\w-]{20,80}T3BlbkFJ[\w-]{20,80})"),
    _secret("anthropic-api-key", r"\b(?P<secret>sk-ant-(?:api|admin)\d\d-[\w-]{80,110})"),
    _secret("gcp-api-key", r"\b(?P<secret>AIza[\w-]{35})(?![\w-])"),
    _secret("npm-access-token", r"\b(?P<secret>npm_[A-Za-z0-9]{36})\b"),
    _secret("pypi-upload-token", r"\b(?P<secret>pypi-AgE[\w-]{60,200})"),
    _secret("sendgrid-api-token", r"\b(?P<secret>SG\.[\w-]{22}\.[\w-]{43})(?![\w-])"),
    _secret("huggingface-access-token", r"\b(?P<secret>hf_[A-Za-z]{34})\b"),
    _secret("telegram-bot-token", r"(?<![\w:])(?P<secret>\d{8,10}:AA[\w-]{33})(?![\w-])"),
    _secret("discord-bot-token", r"(?<![\w.-])(?P<secret>[MNO][A-Za-z\d_-]{23,25}\.[\w-]{6}\.[\w-]{27,38})(?![\w-])", "critical", "medium"),
    _secret("twilio-api-key", r"\b(?P<secret>SK[0-9a-f]{32})\b", "high", "medium"),
    _secret("azure-storage-key", r"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)"),
    _secret("private-key", r"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n){1,4}(?P<secret>[A-Za-z0-9+/=]{40,120}(?:(?:\s|\\n){1,3}[A-Za-z0-9+/=]{1,120}){0,80})"),
    _secret("netrc-password", r"\bmachine\s+\S{1,80}\s+login\s+\S{1,80}\s+password\s+(?P<secret>\S{6,80})", "high", "medium"),
    _secret("xml-password", r"""<\w{1,40}[^<>]{0,80}\bname="[^"]{0,40}(?:password|passwd|secret)[^"]{0,20}"[^<>]{0,40}\bvalue="(?P<secret>[^"]{6,80})\"""", "high", "medium"),
    _secret("uri-password", r"\b(?:postgres(?:ql)?|mysql|mongodb(?:\+srv)?|redis|amqps?|ftp|https?)://[\w.%-]{1,40}:(?P<secret>[^\s:@/'\"]{6,80})@[\w.-]{3,}", "high", "medium"),
)  # fmt: skip
CANARY = Canary("canary.txt", "token = " + "gl" + "pat-" + "Zq8Xw2Lk9Vb3Nm7Rt5Yp\n", "secret.gitlab-pat")


def wants(file: File) -> bool:
    return True


def inspect(file: File, text: str) -> Iterator[Hit]:
    """Every match that is no placeholder."""
    for hit in apply(PATTERNS, file, text):
        if hit.secrets and PLACEHOLDER.search(hit.secrets[0]):
            continue
        yield replace(hit, severity="high") if hit.confidence == "medium" else hit
