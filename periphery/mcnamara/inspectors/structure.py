"""Flaws in languages other than Python: calls that harm when they are given what others send, found in syntax trees.

One mechanism for all languages: a call (or an assignment, an `echo`, an `include`) is its callee and its arguments. A
rule names callees and says when its arguments are dangerous: always (`any`), when they are no fixed text (`dynamic`),
when they are put together from parts (`built`), or when they hold what a request sent (`sent`), directly or by a name
that was assigned from it in the same function. The trees come from tree-sitter, by ast-grep's library.
"""
# ruff: noqa: E501  a table is read one rule a line

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal, NamedTuple

from periphery.mcnamara.findings import Confidence, Hit, Level
from periphery.mcnamara.inventory import File, Kind
from periphery.mcnamara.scanner import Canary

When = Literal["any", "dynamic", "built", "sent"]
Node = Any  # of a library that is in the image only

CANARY = Canary("canary.js", "const n = req.query.n\nres.send('<b>' + n)\n", "code.xss")
NODES = 400_000  # of one file
SCRIPT: tuple[Kind, ...] = ("javascript", "typescript", "tsx")
SENT: dict[str, re.Pattern[str]] = {
    "script": re.compile(r"\b(?:req|request|ctx|event)\.(?:query|params|body|headers|cookies|url|originalUrl|queryStringParameters|request\.body)\b|\blocation\.(?:hash|search|href)\b|\bdocument\.(?:referrer|cookie)\b|\bURLSearchParams\b"),
    "go": re.compile(r"\br(?:eq)?\.(?:URL\.(?:Query|Path|RawQuery)|FormValue|PostFormValue|Form|PostForm|Header\.Get|Body|PathValue|Cookie)\b|\bc\.(?:Query|Param|PostForm|FormValue|QueryParam)\b|\bmux\.Vars\b"),
    "java": re.compile(r"\b\w*[rR]eq(?:uest)?\.get(?:Parameter\w*|Header\w*|QueryString|Cookies|PathInfo|InputStream|Reader)\b"),
    "ruby": re.compile(r"\b(?:params|cookies)\b\s*[\[.]|\brequest\.(?:headers|body|query_string|env)\b"),
    "php": re.compile(r"\$_(?:GET|POST|REQUEST|COOKIE|FILES|SERVER)\b|php://input|->(?:input|query|post)\("),
    "csharp": re.compile(r"\bRequest\.(?:Query\w*|Form|Params|Headers|Cookies|Path|Body)\b|\bRequest\["),
    "kotlin": re.compile(r"\b(?:call\.)?(?:parameters|request\.(?:queryParameters|headers))\b|\bgetParameter\("),
}  # fmt: skip
CALLS = {
    "call_expression", "new_expression", "method_invocation", "object_creation_expression", "call", "function_call_expression",
    "member_call_expression", "scoped_call_expression", "invocation_expression",
}  # fmt: skip
STATEMENTS = {"echo_statement": "echo", "print_intrinsic": "print", "include_expression": "include", "include_once_expression": "include",
              "require_expression": "include", "require_once_expression": "include", "subshell": "`"}  # fmt: skip
ARGUMENTS = {"arguments", "argument_list", "value_arguments", "call_suffix", "formal_parameters"}
PARTS = {"template_substitution", "interpolation", "interpolated_string_expression"}
SUMS = {"binary_expression", "binary", "additive_expression", "concatenated_string"}
LITERALS = {
    "string", "string_literal", "interpreted_string_literal", "raw_string_literal", "encapsed_string", "number", "integer_literal",
    "number_literal", "char_literal", "character_literal", "true", "false", "null", "nil", "line_string_literal", "integer",
}  # fmt: skip
FUNCTIONS = re.compile(
    r"function|method|lambda|arrow|func_literal|closure|constructor|^do_block$|^program$|^source_file$"
)
CLEANED = re.compile(
    r"(?:Number|parseInt|parseFloat|Integer\.parseInt|int|intval|strconv\.\w+|htmlspecialchars|escapeshellarg|encodeURIComponent|basename)\b"
)
FORMATS = re.compile(r"\bfmt\.Sprintf\(|\bString\.format\(|\.formatted\(|\bsprintf\(|\bstring\.Format\(|\bformat!\(")


class Rule(NamedTuple):
    """Callees, and when they harm."""

    name: str
    severity: Level
    cwe: str
    kinds: tuple[Kind, ...]
    callee: str
    when: When
    message: str
    fix: str


class Line(NamedTuple):
    """A setting that is wrong wherever it is written."""

    name: str
    severity: Level
    cwe: str
    kinds: tuple[Kind, ...]
    text: str
    message: str
    fix: str


COMMAND = (
    "A command put together from parts: whoever chooses a part chooses the command.",
    "Pass the arguments as a list, without a shell.",
)
SQL = (
    "A query put together from parts: whoever chooses a part chooses the query.",
    "Use placeholders and pass the values apart.",
)
CODE = "Text is run as code.", "Use data, or a table of functions."
PATH = "What was sent chooses a file.", "Take the base name, or check that the resolved path lies within its directory."
XSS = "What was sent is given to a browser as HTML.", "Escape it, or use a template that does."
REDIRECT = "What was sent chooses where the browser goes.", "Redirect to paths of your own only."
SSRF = "What was sent chooses where the server connects to.", "Choose from a list of known addresses."
OBJECTS = (
    "What was sent is turned into objects: reading it can run code.",
    "Use JSON or another format that holds data only.",
)
WEAK = "A broken hash or cipher.", "Use SHA-256, or AES-GCM."
TLS = "The other side's certificate is not checked.", "Keep the check on; add your own authority if you need one."
MEMORY = "Writes without knowing how much room there is.", "Use a function that is told the size, and check its result."

RULES = (
    Rule("eval", "high", "CWE-95", SCRIPT, r"eval|(?:new\s+)?Function|vm\.runIn\w+|(?:window\.)?execScript", "dynamic", *CODE),
    Rule("command", "high", "CWE-78", SCRIPT, r"(?:\w*[cC]hild_?[pP]rocess\w*\.|cp\.)?exec(?:Sync)?|shell\.exec|execa\.command(?:Sync)?", "built", *COMMAND),
    Rule("command", "critical", "CWE-78", SCRIPT, r"(?:\w+\.)?(?:exec|execSync|spawn|spawnSync|execFile)", "sent", *COMMAND),
    Rule("sql", "high", "CWE-89", SCRIPT, r"[\w.]*\b(?:query|execute|raw|\$queryRawUnsafe|\$executeRawUnsafe|all|run|exec)", "built", *SQL),
    Rule("xss", "high", "CWE-79", SCRIPT, r"(?:res|response|reply)\.(?:send|write|end)", "sent", *XSS),
    Rule("xss", "medium", "CWE-79", SCRIPT, r"document\.write(?:ln)?|[\w.]+\.insertAdjacentHTML|\$\([^)]{0,60}\)\.(?:html|append)", "dynamic", "Text becomes part of the page as HTML.", "Use `textContent`, or sanitize it."),
    Rule("xss", "medium", "CWE-79", SCRIPT, r"[\w.\[\]()'\"-]+\.(?:innerHTML|outerHTML)", "dynamic", "Text becomes part of the page as HTML.", "Use `textContent`, or sanitize it."),
    Rule("path", "high", "CWE-22", SCRIPT, r"(?:fs|fsPromises|fs\.promises|path|res|reply)\.(?:readFile\w*|writeFile\w*|createReadStream|createWriteStream|unlink\w*|readdir\w*|join|resolve|sendFile|download)", "sent", *PATH),
    Rule("redirect", "medium", "CWE-601", SCRIPT, r"(?:res|response|reply|ctx)\.redirect", "sent", *REDIRECT),
    Rule("ssrf", "high", "CWE-918", SCRIPT, r"fetch|axios(?:\.\w+)?|got(?:\.\w+)?|https?\.(?:get|request)|request(?:\.\w+)?|needle\.\w+", "sent", *SSRF),
    Rule("deserialize", "high", "CWE-502", SCRIPT, r"(?:\w*serialize\w*\.)?unserialize|node_?serialize\.\w+|v8\.deserialize", "dynamic", *OBJECTS),
    Rule("weak-crypto", "medium", "CWE-327", SCRIPT, r"crypto\.createCipher|crypto\.createDecipher", "any", *WEAK),
    Rule("nosql", "high", "CWE-943", SCRIPT, r"[\w.]+\.(?:find|findOne|findOneAndUpdate|updateOne|deleteOne|aggregate)", "sent", "What was sent is part of a database query, operators included.", "Turn it into a string first, and check it."),
    Rule("command", "high", "CWE-78", ("go",), r"exec\.Command(?:Context)?", "built", *COMMAND),
    Rule("command", "critical", "CWE-78", ("go",), r"exec\.Command(?:Context)?", "sent", *COMMAND),
    Rule("sql", "high", "CWE-89", ("go",), r"[\w.]+\.(?:Query|QueryRow|Exec|QueryContext|QueryRowContext|ExecContext|Raw|Where)", "built", *SQL),
    Rule("path", "high", "CWE-22", ("go",), r"os\.(?:Open|OpenFile|ReadFile|WriteFile|Create|Remove|RemoveAll)|ioutil\.ReadFile|filepath\.Join|http\.ServeFile", "sent", *PATH),
    Rule("xss", "high", "CWE-79", ("go",), r"template\.(?:HTML|JS|URL)|fmt\.Fprintf?(?:ln)?|w\.Write", "sent", *XSS),
    Rule("redirect", "medium", "CWE-601", ("go",), r"http\.Redirect", "sent", *REDIRECT),
    Rule("ssrf", "high", "CWE-918", ("go",), r"http\.(?:Get|Post|Head|NewRequest\w*)", "sent", *SSRF),
    Rule("weak-crypto", "medium", "CWE-327", ("go",), r"(?:md5|sha1)\.(?:New|Sum)|des\.New\w+|rc4\.NewCipher", "any", *WEAK),
    Rule("host-key", "high", "CWE-322", ("go",), r"ssh\.InsecureIgnoreHostKey", "any", "Any machine may answer for this one.", "Check the host's key."),
    Rule("command", "high", "CWE-78", ("java", "kotlin"), r"(?:.*\.)?(?:exec|ProcessBuilder)|new\s+ProcessBuilder", "built", *COMMAND),
    Rule("sql", "high", "CWE-89", ("java", "kotlin"), r"[\w.]+\.(?:executeQuery|executeUpdate|execute|prepareStatement|createQuery|createNativeQuery|rawQuery|execSQL|queryForObject|queryForList)", "built", *SQL),
    Rule("path", "high", "CWE-22", ("java", "kotlin"), r"(?:new\s+)?(?:File|FileInputStream|FileReader|FileOutputStream)|Paths\.get|Path\.of", "sent", *PATH),
    Rule("xss", "high", "CWE-79", ("java",), r"(?:.*\.)?getWriter\(\)\.(?:print|println|write|append|printf)|out\.(?:print|println)", "sent", *XSS),
    Rule("redirect", "medium", "CWE-601", ("java",), r"\w*[rR]esp(?:onse)?\.sendRedirect", "sent", *REDIRECT),
    Rule("deserialize", "high", "CWE-502", ("java", "kotlin"), r"new\s+(?:ObjectInputStream|XMLDecoder|XStream)|[\w.]*\.readObject", "any", "Reading objects can run code of whoever wrote them.", "Use JSON, or an ObjectInputFilter."),
    Rule("weak-crypto", "medium", "CWE-327", ("java", "kotlin"), r"new\s+NullCipher", "any", *WEAK),
    Rule("eval", "high", "CWE-95", ("java", "kotlin"), r"[\w.]*[eE]ngine\.eval|[\w.]*parser\.parseExpression", "dynamic", *CODE),
    Rule("command", "high", "CWE-78", ("ruby",), r"(?:Kernel\.)?(?:system|exec|spawn)|IO\.popen|Open3\.\w+|`", "built", *COMMAND),
    Rule("eval", "high", "CWE-95", ("ruby",), r"(?:[\w.]+\.)?(?:eval|instance_eval|class_eval|constantize|send|public_send)", "sent", *CODE),
    Rule("sql", "high", "CWE-89", ("ruby",), r"[\w.:]+\.(?:where|find_by_sql|execute|order|joins|select|exec_query)", "built", *SQL),
    Rule("deserialize", "high", "CWE-502", ("ruby",), r"Marshal\.load|YAML\.(?:load|unsafe_load)|Oj\.load", "dynamic", *OBJECTS),
    Rule("path", "high", "CWE-22", ("ruby",), r"File\.(?:open|read|write|join|delete)|IO\.read|send_file|open", "sent", *PATH),
    Rule("redirect", "medium", "CWE-601", ("ruby",), r"redirect_to", "sent", *REDIRECT),
    Rule("xss", "high", "CWE-79", ("ruby",), r"raw|render", "sent", *XSS),
    Rule("eval", "critical", "CWE-95", ("php",), r"eval|assert|create_function|preg_replace_callback", "sent", *CODE),
    Rule("eval", "high", "CWE-95", ("php",), r"eval|create_function", "dynamic", *CODE),
    Rule("command", "critical", "CWE-78", ("php",), r"system|exec|passthru|shell_exec|popen|proc_open|pcntl_exec|`", "sent", *COMMAND),
    Rule("command", "medium", "CWE-78", ("php",), r"system|exec|passthru|shell_exec|popen|proc_open", "dynamic", *COMMAND),
    Rule("sql", "high", "CWE-89", ("php",), r"(?:[\w$>-]+->)?(?:query|exec|multi_query|prepare|real_query)|mysqli?_query|pg_query", "built", *SQL),
    Rule("sql", "high", "CWE-89", ("php",), r"(?:[\w$>-]+->)?(?:query|exec|multi_query)|mysqli?_query|pg_query", "sent", *SQL),
    Rule("include", "critical", "CWE-98", ("php",), r"include", "sent", "What was sent chooses the code that is run.", "Choose from a list of known files."),
    Rule("deserialize", "high", "CWE-502", ("php",), r"unserialize", "sent", *OBJECTS),
    Rule("xss", "high", "CWE-79", ("php",), r"echo|print|printf", "sent", *XSS),
    Rule("path", "high", "CWE-22", ("php",), r"file_get_contents|fopen|readfile|file|unlink|move_uploaded_file|copy|file_put_contents", "sent", *PATH),
    Rule("redirect", "medium", "CWE-601", ("php",), r"header", "sent", *REDIRECT),
    Rule("extract", "high", "CWE-621", ("php",), r"extract|parse_str", "sent", "What was sent sets variables by their names.", "Read the fields you expect, one by one."),
    Rule("gets", "critical", "CWE-242", ("c", "cpp"), r"gets", "any", *MEMORY),
    Rule("unbounded-copy", "medium", "CWE-120", ("c", "cpp"), r"strcpy|strcat|stpcpy|wcscpy|sprintf|vsprintf", "dynamic", *MEMORY),
    Rule("command", "high", "CWE-78", ("c", "cpp"), r"system|popen", "dynamic", *COMMAND),
    Rule("format", "high", "CWE-134", ("c", "cpp"), r"printf|syslog|vprintf", "dynamic", "The format is no fixed text: what it says reads and writes memory.", 'Use a fixed format: printf("%s", text).'),
    Rule("temporary-name", "medium", "CWE-377", ("c", "cpp"), r"tmpnam|tempnam|mktemp", "any", "Somebody else can take the name first.", "Use mkstemp."),
    Rule("command", "high", "CWE-78", ("csharp",), r"(?:System\.Diagnostics\.)?Process\.Start", "built", *COMMAND),
    Rule("sql", "high", "CWE-89", ("csharp",), r"new\s+\w*Command|[\w.]+\.(?:FromSqlRaw|ExecuteSqlRaw|ExecuteSqlCommand)", "built", *SQL),
    Rule("deserialize", "high", "CWE-502", ("csharp",), r"new\s+(?:BinaryFormatter|NetDataContractSerializer|LosFormatter|SoapFormatter|ObjectStateFormatter)", "any", *OBJECTS),
    Rule("xss", "high", "CWE-79", ("csharp",), r"(?:\w+\.)?Html\.Raw|Response\.Write", "sent", *XSS),
    Rule("redirect", "medium", "CWE-601", ("csharp",), r"(?:Response\.)?Redirect", "sent", *REDIRECT),
    Rule("path", "high", "CWE-22", ("csharp",), r"(?:System\.IO\.)?File\.\w+|Path\.Combine|new\s+FileStream", "sent", *PATH),
    Rule("weak-crypto", "medium", "CWE-327", ("csharp",), r"(?:MD5|SHA1|DES|RC2|TripleDES)\.Create|new\s+(?:MD5|SHA1|DES|RC2)\w*Provider", "any", *WEAK),
    Rule("command", "high", "CWE-78", ("rust",), r'Command::new\("(?:/bin/)?(?:ba|z)?sh"\)[\s\S]*\.args?', "built", *COMMAND),
)  # fmt: skip
LINES = (
    Line("tls", "high", "CWE-295", SCRIPT, r"\brejectUnauthorized\s*:\s*false\b", *TLS),
    Line("tls", "high", "CWE-295", ("go",), r"\bInsecureSkipVerify\s*:\s*true\b", *TLS),
    Line("tls", "high", "CWE-295", ("rust",), r"\bdanger_accept_invalid_(?:certs|hostnames)\(true\)", *TLS),
    Line("tls", "high", "CWE-295", ("ruby",), r"\bVERIFY_NONE\b|verify_ssl\s*[:=]>?\s*false", *TLS),
    Line("tls", "high", "CWE-295", ("php",), r"CURLOPT_SSL_VERIFY(?:PEER|HOST)\s*(?:=>|,)\s*(?:false|0)\b", *TLS),
    Line("tls", "high", "CWE-295", ("csharp",), r"ServerCertificate(?:Custom)?ValidationCallback\s*\+?=[^;\n]{0,120}(?:=>\s*true|return\s+true)", *TLS),
    Line("tls", "high", "CWE-295", ("java", "kotlin"), r"ALLOW_ALL_HOSTNAME_VERIFIER|NoopHostnameVerifier|checkServerTrusted\([^)]{0,200}\)[^{\n]{0,80}\{\s*\}", *TLS),
    Line("weak-crypto", "medium", "CWE-327", ("java", "kotlin"), r"getInstance\(\s*\"(?:MD2|MD5|SHA-?1|DES(?:/[^\"]{0,40})?|DESede[^\"]{0,40}|RC[24]|AES/ECB[^\"]{0,40}|AES)\"", *WEAK),
    Line("weak-crypto", "medium", "CWE-327", SCRIPT, r"createHash\(\s*['\"](?:md5|sha1)['\"]", *WEAK),
    Line("weak-crypto", "medium", "CWE-327", ("ruby", "php"), r"\bDigest::(?:MD5|SHA1)\b|\b(?:md5|sha1)\(\s*\$\w*pass", *WEAK),
    Line("jwt", "high", "CWE-347", SCRIPT, r"algorithms\s*:\s*\[[^\]]{0,80}['\"]none['\"]", "A token without a signature is accepted.", "Name the one algorithm you use."),
    Line("xxe", "high", "CWE-611", SCRIPT, r"\bnoent\s*:\s*true\b", "XML may name files to be read in.", "Leave external entities off."),
    Line("xxe", "high", "CWE-611", ("php",), r"\bLIBXML_NOENT\b|libxml_disable_entity_loader\(\s*false", "XML may name files to be read in.", "Leave external entities off."),
    Line("webview", "medium", "CWE-749", ("java", "kotlin"), r"\.addJavascriptInterface\(|setAllowUniversalAccessFromFileURLs\(true\)", "Pages may call into the program.", "Expose nothing to pages that are not yours."),
    Line("dangerous-html", "medium", "CWE-79", SCRIPT, r"\bdangerouslySetInnerHTML\s*=\s*\{\{\s*__html\s*:\s*(?!['\"`])", "Text becomes part of the page as HTML.", "Sanitize it first."),
    Line("post-message", "low", "CWE-346", SCRIPT, r"\.postMessage\([^\n]{1,200},\s*['\"]\*['\"]\s*\)", "Any page may receive the message.", "Name the origin it is for."),
)  # fmt: skip
COMPILED = [(each, re.compile(each.callee)) for each in RULES]
COMPILED_LINES = [(each, re.compile(each.text)) for each in LINES]
KINDS = {kind for each in (*RULES, *LINES) for kind in each.kinds}


def wants(file: File) -> bool:
    return file.kind in KINDS


def inspect(file: File, text: str) -> Iterator[Hit]:
    """Every rule for the file's language.

    Raises:
        ValueError: the file is far too big to be looked at node by node.
    """
    for line, expression in COMPILED_LINES:
        if file.kind in line.kinds:
            for match in expression.finditer(text):
                at = text.count("\n", 0, match.start()) + 1
                yield Hit(f"code.{line.name}", line.severity, file.path, at, line.message, line.fix, line.cwe)
    rules = [each for each in COMPILED if file.kind in each[0].kinds]
    if rules:
        tree = import_module("ast_grep_py").SgRoot(text, file.kind).root()
        yield from _Tree(file, tree).hits(rules)


class _Tree:
    """One file's syntax tree."""

    def __init__(self, file: File, root: Node) -> None:
        self._file = file
        self._root = root
        family = "script" if file.kind in SCRIPT else file.kind
        self._sent = SENT.get(family)
        self._names: dict[int, set[str]] = {}

    def hits(self, rules: list[tuple[Rule, re.Pattern[str]]]) -> Iterator[Hit]:
        """One hit for each call, the gravest."""
        waiting, seen = [self._root], 0
        while waiting:
            node = waiting.pop()
            waiting.extend(node.children())
            seen += 1
            if seen > NODES:
                raise ValueError(f"more than {NODES:,} nodes")
            found = _split(node)
            if found is None:
                continue
            callee, arguments = found
            for rule, expression in sorted(rules, key=lambda each: each[0].when != "sent"):
                if expression.fullmatch(callee) and self._harms(rule.when, node, arguments):
                    at = node.range().start.line + 1
                    severity = rule.severity
                    sure: Confidence = "high" if rule.when == "sent" else "medium"
                    yield Hit(
                        f"code.{rule.name}", severity, self._file.path, at, rule.message, rule.fix, rule.cwe, sure
                    )
                    break

    def _harms(self, when: When, node: Node, arguments: list[Node]) -> bool:
        if when == "any":
            return True
        if when == "sent":
            return self._sent is not None and any(self._holds_sent(node, each) for each in arguments)
        if when == "dynamic":
            return (bool(arguments) and arguments[0].kind() not in LITERALS) or any(
                _is_built(each) for each in arguments[:1]
            )
        return any(_is_built(each) for each in arguments)

    def _holds_sent(self, node: Node, argument: Node) -> bool:
        text = argument.text()
        if self._sent is None or len(text) > 20_000:
            return False
        if self._sent.search(text):
            return True
        around = next((each for each in node.ancestors() if FUNCTIONS.search(each.kind())), self._root)
        names = self._assigned(around)
        return any(each in names for each in re.findall(r"\$?\b[A-Za-z_]\w{0,60}\b", text))

    def _assigned(self, function: Node) -> set[str]:
        """The names that hold what was sent, within a function."""
        place = function.range().start.index
        if place not in self._names:
            names: set[str] = set()
            text = function.text()[:200_000]
            for match in re.finditer(
                r"(?m)(\{[^{}=\n]{1,200}\}|\[[^\[\]=\n]{1,200}\]|\$?\b\w{1,60}(?:\s*,\s*\w{1,60}){0,4})\s*(?::?=)(?!=|>)\s*([^\n;]{1,400})",
                text,
            ):
                right = match.group(2)
                parts = re.findall(r"\$?\b[A-Za-z_]\w{0,60}\b", right)
                holds = self._sent is not None and (self._sent.search(right) or any(each in names for each in parts))
                if holds and not CLEANED.match(right):
                    names |= set(re.findall(r"\$?\b[A-Za-z_]\w{0,60}\b", match.group(1)))
            self._names[place] = names
        return self._names[place]


def _split(node: Node) -> tuple[str, list[Node]] | None:
    """Callee and arguments of a node that does something; None for any other."""
    kind = node.kind()
    if kind in STATEMENTS:
        return STATEMENTS[kind], [node]
    if kind == "assignment_expression":
        left, right = node.field("left"), node.field("right")
        return (left.text()[:120], [right]) if left is not None and right is not None else None
    if kind not in CALLS:
        return None
    group = next((each for each in reversed(node.children()) if each.kind() in ARGUMENTS), None)
    if group is None:
        return None
    callee = node.text()[: group.range().start.index - node.range().start.index].strip()
    inner = [each for each in group.children() if each.is_named()]
    if group.kind() == "call_suffix" and inner:
        inner = [each for each in inner[0].children() if each.is_named()]
    return callee[-200:], inner


def _is_built(node: Node) -> bool:
    """Whether a text is put together from parts that are not all fixed."""
    waiting = [node]
    for _ in range(2000):
        if not waiting:
            return False
        each = waiting.pop()
        kind = each.kind()
        if kind in PARTS or (
            kind == "encapsed_string" and any(part.kind() == "variable_name" for part in each.children())
        ):
            return True
        if kind in SUMS:
            text = each.text()[:4000]
            if re.search(r"['\"`]", text) and re.search(r"\+|\.(?=\s*[$'\"])", text):
                sides = [part for part in each.children() if part.is_named()]
                if any(part.kind() not in LITERALS for part in sides):
                    return True
        if kind in CALLS | {"macro_invocation"} and FORMATS.match(each.text()[:60]):
            return True
        if not FUNCTIONS.search(kind):
            waiting.extend(each.children())
    return False
