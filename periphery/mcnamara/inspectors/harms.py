"""What data flow is about: sources that others send, places they can harm, and what takes the harm away."""

# ruff: noqa: E501  a table is read one rule a line

import re
from typing import Literal, NamedTuple

from periphery.mcnamara.findings import Level

Harm = Literal[
    "command", "code", "sql", "path", "ssrf", "redirect", "xss", "template", "deserialize", "ldap", "xpath", "session", "import",
]  # fmt: skip


class Sink(NamedTuple):
    """What happens when tainted data arrives, and what helps."""

    severity: Level
    cwe: str
    message: str
    fix: str


SINKS: dict[Harm, Sink] = {
    "command": Sink("critical", "CWE-78", "becomes part of a command", "Pass a list of arguments without a shell, or quote with `shlex.quote`."),
    "code": Sink("critical", "CWE-95", "is run as code", "Use a table of functions, or `ast.literal_eval` for data."),
    "sql": Sink("high", "CWE-89", "becomes part of a query", "Pass it as a parameter of the query."),
    "path": Sink("high", "CWE-22", "chooses a file", "Take the base name, or check that the resolved path lies within its directory."),
    "ssrf": Sink("high", "CWE-918", "chooses where the server connects to", "Choose from a list of known addresses."),
    "redirect": Sink("medium", "CWE-601", "chooses where the browser is sent", "Redirect to paths of your own only."),
    "xss": Sink("high", "CWE-79", "is sent to a browser as HTML", "Use an autoescaping template, or `markupsafe.escape`."),
    "template": Sink("critical", "CWE-1336", "is taken for a template", "Pass it to a fixed template as a value."),
    "deserialize": Sink("critical", "CWE-502", "is turned into objects", "Use JSON or another format that holds data only."),
    "ldap": Sink("high", "CWE-90", "becomes part of an LDAP query", "Escape it with `escape_filter_chars` or `escape_dn_chars`."),
    "xpath": Sink("high", "CWE-643", "becomes part of an XPath query", "Pass it as a variable of the expression."),
    "session": Sink("medium", "CWE-501", "is kept where only checked data should be", "Check it before it enters the session."),
    "import": Sink("high", "CWE-470", "chooses the code that is loaded", "Choose from a list of known names."),
}  # fmt: skip
ALL: frozenset[Harm] = frozenset(SINKS)
LOCAL: frozenset[Harm] = frozenset({"command", "code", "sql", "deserialize"})  # what the user of a program can do to it

# Calls by what they do to their first argument; names are full, after imports are resolved, or end as given.
CALLS: tuple[tuple[str, Harm], ...] = (
    (r"os\.(?:system|popen|exec[lv]p?e?|spawn[lv]p?e?)|subprocess\.(?:getoutput|getstatusoutput)|commands\.getoutput|pty\.spawn|asyncio\.create_subprocess_shell", "command"),
    (r"eval|exec|compile|code\.interact|builtins\.(?:eval|exec)", "code"),
    (r".*\.(?:execute|executemany|executescript|raw|read_sql|read_sql_query|mogrify)|(?:.*\.)?text|.*\.RawSQL|RawSQL", "sql"),
    (r"open|io\.open|os\.(?:open|remove|unlink|rename|replace|mkdir|makedirs|rmdir|listdir|scandir|stat|chmod|symlink|link|path\.exists|path\.isfile|path\.getsize)|codecs\.open"
     r"|shutil\.(?:copy|copyfile|copy2|copytree|move|rmtree)|(?:flask\.|.*\.)?send_file|.*\.?FileResponse|(?:zipfile\.ZipFile|tarfile\.open)|pathlib\.Path|linecache\.getlines|.*\.extractall|.*\.save", "path"),
    (r"(?:requests|httpx|session|client|aiohttp)\.(?:get|post|put|patch|delete|head|request|stream)|urllib\.request\.(?:urlopen|Request|urlretrieve)|urllib\.urlopen|urllib2\.urlopen|http\.client\.HTTPS?Connection|socket\.create_connection", "ssrf"),
    (r"(?:flask\.|werkzeug\.utils\.|django\.shortcuts\.|bottle\.)?redirect|.*\.?(?:HttpResponseRedirect|HttpResponsePermanentRedirect|RedirectResponse)|self\.redirect", "redirect"),
    (r"(?:flask\.)?(?:make_response|Response)|.*\.(?:make_response|HttpResponse|HTMLResponse|Markup|mark_safe)|HttpResponse|HTMLResponse|Markup|mark_safe|self\.wfile\.write|werkzeug\.wrappers\.Response", "xss"),
    (r".*\.?render_template_string|jinja2\.Template|.*\.from_string|mako\.template\.Template|string\.Template|django\.template\.Template", "template"),
    (r"(?:pickle|cPickle|_pickle|dill|cloudpickle|marshal|shelve|joblib)\.(?:loads?|open|Unpickler)|yaml\.(?:unsafe_load|full_load|load|load_all)|jsonpickle\.decode|.*\.read_pickle", "deserialize"),
    (r".*\.(?:search|search_s|search_ext|search_ext_s|search_st|simple_bind_s|modify_s|paged_search)", "ldap"),
    (r".*\.(?:xpath|XPath|iterfind|findall|find|findtext|select)|XPath|elementpath\.select", "xpath"),
    (r"importlib\.import_module|__import__|imp\.load_source|runpy\.run_(?:path|module)", "import"),
)  # fmt: skip
COMPILED = tuple((re.compile(expression), harm) for expression, harm in CALLS)
NEEDS: dict[Harm, re.Pattern[str]] = {  # names that are common elsewhere count only where such a module is imported
    "ldap": re.compile(r"^(?:ldap3?|flask_ldap|django_auth_ldap)"),
    "xpath": re.compile(r"^(?:lxml|xml|elementpath|defusedxml|parsel)"),
    "sql": re.compile(r"sql|db|psycopg|MySQL|cx_Oracle|oracledb|pandas|peewee|django|records|database|models"),
}
CLEAN: tuple[tuple[str, frozenset[Harm]], ...] = (
    (r"int|float|bool|len|ord|hash|id|isinstance|sum|uuid\.UUID|decimal\.Decimal|datetime\..*|hashlib\..*|hmac\..*|secrets\..*|.*\.(?:hexdigest|digest|isdigit|isalnum|isalpha|startswith|endswith|find|index|count)|ast\.literal_eval|(?:io\.|codecs\.|os\.)?open|(?:flask\.|.*\.)?(?:redirect|make_response|Response|HttpResponse\w*|RedirectResponse|HTMLResponse|send_file)", ALL),
    (r"html\.escape|cgi\.escape|(?:markupsafe\.|flask\.|.*\.)?escape|bleach\.clean|.*\.?conditional_escape|.*\.escape_for_html|urllib\.parse\.(?:quote|quote_plus|urlencode)|(?:flask\.)?jsonify|json\.dumps|(?:flask\.)?render_template|.*\.TemplateResponse|django\.shortcuts\.render", frozenset({"xss", "template"})),
    (r"shlex\.quote|pipes\.quote", frozenset({"command"})),
    (r"os\.path\.basename|ntpath\.basename|(?:werkzeug\.utils\.)?secure_filename|.*\.?safe_join|ntpath\.basename|urllib\.parse\.quote|.*\.hexdigest", frozenset({"path"})),
    (r".*\.?(?:escape_filter_chars|escape_dn_chars|escape_rdn)", frozenset({"ldap"})),
    (r"(?:flask\.)?url_for|django\.urls\.reverse|urllib\.parse\.quote", frozenset({"redirect", "ssrf"})),
    (r".*\.(?:mogrify|quote_ident|escape_string|escape_literal)|psycopg2\.sql\.\w+", frozenset({"sql"})),
)  # fmt: skip
CLEANERS = tuple((re.compile(expression), harms) for expression, harms in CLEAN)
REQUEST = {
    "args", "form", "values", "cookies", "headers", "json", "data", "files", "query_string", "full_path", "path", "url",
    "base_url", "GET", "POST", "COOKIES", "META", "FILES", "body", "query_params", "path_params", "query", "match_info",
    "get_json", "get_data", "environ", "referrer", "user_agent", "stream", "view_args", "params", "forms", "rel_url", "host",
}  # fmt: skip
ROUTES = re.compile(r"(?:^|\.)(?:route|get|post|put|patch|delete|websocket|api_route|view|api_view)$")
FRAMEWORKS = ("flask", "django", "fastapi", "starlette", "aiohttp", "tornado", "bottle", "sanic", "quart", "falcon", "pyramid", "werkzeug", "rest_framework")  # fmt: skip
HTML_FRAMEWORKS = ("flask", "bottle", "quart")  # a string that a view returns is a page
SIMPLE_TYPES = {"int", "float", "bool", "UUID", "uuid.UUID", "date", "datetime"}
PARSERS = {"urllib.parse.urlparse", "urllib.parse.urlsplit", "urlparse.urlparse"}
PATH_METHODS = {
    "read_text", "read_bytes", "write_text", "write_bytes", "open", "exists", "is_file", "unlink", "mkdir", "rmdir", "iterdir",
    "glob", "rglob", "stat", "touch",
}  # fmt: skip
STORES = {"set", "add", "append", "insert", "update", "extend", "write", "put", "setdefault", "push", "appendleft"}
LEAVES = {"abort", "flask.abort", "sys.exit", "exit", "quit", "os._exit", "werkzeug.exceptions.abort"}
