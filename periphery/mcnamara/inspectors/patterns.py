"""Known-bad patterns in any language: hidden text, payloads that unpack themselves, reverse shells, miners, theft."""
# ruff: noqa: E501  a table is read one rule a line

import re
from collections import Counter
from collections.abc import Iterator

from periphery.mcnamara.findings import Hit
from periphery.mcnamara.inspectors.rules import Pattern, apply
from periphery.mcnamara.inventory import File, Kind
from periphery.mcnamara.scanner import Canary

PYTHON: frozenset[Kind] = frozenset({"python"})
SCRIPTS: frozenset[Kind] = frozenset({"javascript", "typescript", "tsx"})
SHELLS: frozenset[Kind] = frozenset({"shell", "dockerfile", "workflow", "text"})
CODE: frozenset[Kind] = frozenset(
    {
        "python", "javascript", "typescript", "tsx", "go", "java", "ruby", "php", "c", "cpp", "csharp", "rust", "kotlin",
        "shell", "dockerfile", "workflow",
    }
)  # fmt: skip
MALICE = "Treat it as hostile: do not run or install it; find out who put it there, and when."
READ = "Find out what it does before anything runs it."

PATTERNS = (
    Pattern(
        "hidden.bidi", "high", "CWE-1007", "[\u202a-\u202e\u2066-\u2069]",
        "Characters that turn the direction of text: people read other code than machines run.",
        "Remove them, or write them as escapes.", CODE, "high",
    ),
    Pattern(
        "hidden.invisible", "high", "CWE-1007", "[\u200b\u2060]|[\U000e0000-\U000e007f]{2}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{8}|(?<=.)\ufeff",
        "Invisible characters in the text: they can hide a payload, or instructions to an agent.",
        "Remove them, or write them as escapes.", None, "high",
    ),
    Pattern(
        "hidden.homoglyph", "medium", "CWE-1007",
        r"(?<!\w)(?=\w{0,40}[a-zA-Z])\w{0,40}[\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u03bf\u039f\u0391\u0392\u0395][a-zA-Z]\w{0,40}",
        "A name mixes Latin letters with look-alikes of another script.",
        "Write it with the letters of one script.", CODE,
    ),
    Pattern(
        "malware.reverse-shell", "critical", "CWE-506",
        r"/dev/(?:tcp|udp)/[\w.$\{\}-]{1,80}/|\bnc(?:at)?\b[^\n|;]{0,60}\s-(?:[a-z]{0,4}e|c)\s{1,3}\S{0,20}sh\b|mkfifo [^\n]{1,80}\bnc\b"
        r"|os\.dup2\(\s?\w{1,20}\.fileno\(\)|socat\b[^\n]{0,80}exec[:]|New-Object\s{1,3}System\.Net\.Sockets\.TCPClient"
        r"|fsockopen\([^\n]{0,80}(?:exec|shell_exec|proc_open|popen)\(",
        "Opens a shell to another machine.", MALICE, None, "high",
    ),
    Pattern(
        "malware.miner", "critical", "CWE-506",
        r"stratum\+(?:tcp|ssl)://|\bcoinhive(?:\.min)?\.js|\bxmrig\b[^\n]{0,80}(?:-o|--url|--donate|\.tar|pool)|\b(?:minexmr|supportxmr|nanopool)\.(?:com|org)\b",
        "Mines a currency on the machine it runs on.", MALICE, None, "high",
    ),
    Pattern(
        "malware.run-decoded", "critical", "CWE-506",
        r"\b(?:exec|eval)\s?\(\s?(?:compile\s?\(\s?)?(?:__import__\(\s?['\"](?:base64|zlib|codecs|marshal|binascii)['\"]\)|base64|zlib|codecs|marshal|binascii|bytes\.fromhex|lzma|gzip)\b"
        r"|\b(?:exec|eval)\s?\([^\n]{0,60}\.(?:b64decode|a85decode|unhexlify|decompress|fromhex)\(",
        "Runs code that it unpacks first: what it does is not in the text.", MALICE, PYTHON, "high",
    ),
    Pattern(
        "malware.run-decoded", "critical", "CWE-506",
        r"\b(?:eval|Function|setTimeout|execSync|exec)\s?\(\s?(?:atob|unescape|decodeURIComponent|Buffer\.from|String\.fromCharCode)\s?\("
        r"|new Function\([^\n]{0,60}(?:atob|Buffer\.from)\(|\beval\(function\(p,a,c,k,e,[dr]\)",
        "Runs code that it unpacks first: what it does is not in the text.", MALICE, SCRIPTS, "high",
    ),
    Pattern(
        "malware.run-decoded", "critical", "CWE-506",
        r"\b(?:eval|assert|create_function)\s?\(\s?(?:@?\s?(?:base64_decode|gzinflate|gzuncompress|str_rot13|hex2bin|strrev)\s?\(|\$_(?:GET|POST|REQUEST|COOKIE)\b)",
        "Runs code that it unpacks or is sent: a web shell.", MALICE, frozenset({"php"}), "high",
    ),
    Pattern(
        "malware.run-decoded", "critical", "CWE-506",
        r"\bbase64\s{1,3}(?:-d|-D|--decode)\b[^\n]{0,40}\|\s?(?:sudo\s)?(?:ba|z|da)?sh\b|\bxxd\s{1,3}-r[^\n]{0,40}\|\s?(?:ba)?sh\b|powershell[^\n]{0,80}-e(?:nc|ncodedcommand)?\s[A-Za-z0-9+/=]{40}"
        r"|IEX\s?\(?\s?\(?New-Object\s{1,3}Net\.WebClient",
        "Runs commands that it unpacks first: what they do is not in the text.", MALICE, None, "high", re.IGNORECASE,
    ),
    Pattern(
        "supply.fetch-and-run", "high", "CWE-494",
        r"\b(?:curl|wget)\b[^\n|;&]{0,200}\|\s{0,3}(?:sudo\s{1,3}(?:-\w{1,3}\s)?)?(?:/bin/)?(?:ba|z|da|k)?sh\b|\b(?:ba)?sh\s{1,3}(?:-c\s{1,3})?[\"']?(?:<\(|\$\()\s?(?:curl|wget)\b",
        "Runs whatever a server sends, unseen and unchecked.",
        "Download it, check its digest, then run it.", SHELLS, "high",
    ),
    Pattern(
        "supply.fetch-and-run", "critical", "CWE-494",
        r"\b(?:exec|eval)\s?\(\s?(?:requests\.get|urllib\.request\.urlopen|urlopen|httpx\.get)\s?\(|\beval\(\s?(?:await\s)?\(?\s?(?:await\s)?fetch\(",
        "Runs whatever a server sends, unseen and unchecked.", MALICE, None, "high",
    ),
    Pattern(
        "malware.exfiltration", "high", "CWE-506",
        r"https?://(?:discord(?:app)?\.com/api/webhooks/\d|api\.telegram\.org/bot|[\w.-]{0,60}\b(?:webhook\.site|requestbin\.(?:com|net)|pipedream\.net|oast\.(?:fun|pro|live|site|me|online)|interact\.sh|burpcollaborator\.net|ngrok(?:-free)?\.(?:io|app)|requestcatcher\.com)\b)",
        "Sends to an anonymous collection point, as thieves of secrets do.", READ, CODE,
    ),
    Pattern(
        "malware.steals-environment", "high", "CWE-506",
        r"(?:requests|httpx|session)\.(?:post|put|get)\([^\n]{0,160}(?:dict\()?os\.environ\b|JSON\.stringify\(\s?process\.env\s?\)|(?:curl|wget)[^\n]{0,120}\$\((?:env|printenv)\b|(?:env|printenv)\s?\|\s?(?:base64\s?\|\s?)?(?:curl|nc)\b",
        "Sends the environment, with whatever secrets it holds, away.", MALICE, None,
    ),
    Pattern(
        "malware.steals-files", "medium", "CWE-506",
        r"[.]aws/credentials|[.]ssh/id_(?:rsa|ed25519|ecdsa)\b|Login[ ]Data|Local[ ]State|\bwallet[.]dat\b|[.]config/gcloud/|[.]kube/config\b|[.]docker/config[.]json|/etc/[s]hadow\b",
        "Names a file where people keep credentials.", READ, frozenset({"python", "javascript", "typescript", "ruby", "php", "go"}), "low",
    ),
    Pattern(
        "malware.persistence", "high", "CWE-506",
        r">>\s{0,3}[\"']?(?:~|\$HOME|/root|/home/\w{1,32})/\.ssh/authorized_keys|/etc/ld\.so\.preload\b|\(crontab\s-l[^\n]{0,120}\|\s?crontab\s-",
        "Makes itself at home on the machine.", READ, SHELLS | PYTHON,
    ),
    Pattern(
        "shell.destroys", "high", "CWE-506",
        r"\brm\s{1,3}-(?:rf|fr|r\s-f)\s{1,3}(?:--no-preserve-root\s)?(?:/|/\*|~|\$HOME)(?:\s|$|;|\")|:\(\)\s?\{\s?:\s?\|\s?:\s?&\s?\}\s?;\s?:|\bdd\s[^\n]{0,60}of=/dev/(?:sd|nvme|hd|vd)",
        "Destroys the machine's data.", MALICE, SHELLS, "medium", re.MULTILINE,
    ),
    Pattern(
        "shell.no-verification", "medium", "CWE-295",
        r"\bcurl\b[^\n|;]{0,120}\s(?:-[a-zA-Z]{0,6}k[a-zA-Z]{0,6}|--insecure)\s|\bwget\b[^\n|;]{0,120}--no-check-certificate|http\.sslVerify[= ]\s?[\"']?false|GIT_SSL_NO_VERIFY=(?:1|true)"
        r"|NODE_TLS_REJECT_UNAUTHORIZED['\"]?\]?\s?[=:]\s?['\"]?0|StrictHostKeyChecking[= ]no|\bnpm\s(?:config\s)?set\s+strict-ssl\s+false",
        "Does not check whom it talks to.", "Keep certificate and host key checks on; add your own authority if you need one.",
    ),
    Pattern(
        "shell.world-writable", "low", "CWE-732", r"\bchmod\s{1,3}(?:-\w{1,3}\s{1,3})?(?:0?777|a\+rwx)\b|os\.chmod\([^\n]{0,80}0o777\)",
        "Anyone on the machine may change it.", "Grant what is needed to who needs it.", CODE | frozenset({"text"}),
    ),
    Pattern(
        "agent.steering", "medium", "CWE-1427",
        r"\b(?:ignore|disregard|forget)\s{1,3}(?:all\s{1,3}|any\s{1,3})?(?:of\s{1,3})?(?:the\s{1,3}|your\s{1,3})?(?:previous|prior|above|earlier)\s{1,3}(?:instructions|prompts|rules)\b|<\|im_start\|>system",
        "Text that tries to steer an agent that reads it.", "Do not let an agent act on this text.", None, "low", re.IGNORECASE,
    ),
)  # fmt: skip

OBFUSCATED_NAME = re.compile(r"\b_0x[0-9a-f]{4,6}\b")
BLOB = re.compile(r"['\"`]([A-Za-z0-9+/=]{2000})")
CANARY = Canary("canary.py", "ex" + "ec(base64.b64decode('cHJpbnQoMSk='))\n", "malware.run-decoded")


def wants(file: File) -> bool:
    return True


def inspect(file: File, text: str) -> Iterator[Hit]:
    """Everything the patterns say, and two measures that are no expressions."""
    yield from apply(PATTERNS, file, text)
    if file.kind in SCRIPTS:
        names = Counter(match.group() for match in OBFUSCATED_NAME.finditer(text))
        if len(names) >= 12:
            yield Hit(
                rule="hidden.obfuscated",
                severity="high",
                path=file.path,
                line=text.count("\n", 0, text.index(next(iter(names)))) + 1,
                message=f"{len(names)} names as an obfuscator makes them: the text is not meant to be read.",
                fix=READ,
                cwe="CWE-506",
                snippet=", ".join(list(names)[:8]),
            )
    blob = BLOB.search(text) if file.kind in CODE else None
    if blob:
        yield Hit(
            rule="hidden.blob",
            severity="low",
            path=file.path,
            line=text.count("\n", 0, blob.start()) + 1,
            message="A long encoded text within code: nobody sees what it is.",
            fix=READ,
            cwe="CWE-506",
            confidence="low",
            snippet=blob.group(1)[:60],
        )
    if file.kind in CODE and "\0" in text:
        yield Hit(
            rule="hidden.nul",
            severity="medium",
            path=file.path,
            line=text.count("\n", 0, text.index("\0")) + 1,
            message="NUL characters within code: tools take it for a binary and look away.",
            fix="Remove them.",
            cwe="CWE-158",
        )
