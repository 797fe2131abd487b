"""The taint analysis: what it follows, where it stops, what it takes for clean."""
# ruff: noqa: E501  a table is read one case a line

from pathlib import Path

import pytest

from periphery.mcnamara.inspectors import dataflow
from periphery.mcnamara.inventory import File

FLASK = "import os, subprocess\nfrom flask import Flask, request, redirect, session, make_response\napp = Flask('x')\n"


def found(body: str, head: str = FLASK, *, route: str = "@app.route('/')\n") -> list[str]:
    text = head + (f"{route}def view():\n" + "".join(f"    {line}\n" for line in body.splitlines()) if body else "")
    hits = dataflow.inspect(File("a.py", Path("/nowhere"), len(text), "python"), text)
    return [hit.rule.removeprefix("dataflow.") for hit in hits]


@pytest.mark.parametrize(
    ("body", "harm"),
    [
        ("n = request.args.get('n')\nos.system('ls ' + n)", "command"),
        ("n = request.form['n']\nsubprocess.run(f'ls {n}', shell=True)", "command"),
        ("a = ['sh']\na.append('-c')\na.append(request.form['n'])\nsubprocess.run(a)", "command"),
        ("eval(request.cookies['x'])", "code"),
        ("import sqlite3\nq = 'select %s' % request.args['q']\nsqlite3.connect('x').execute(q)", "sql"),
        ("name = request.headers.get('x')\nwith open('/data/' + name) as f: pass", "path"),
        (
            "from pathlib import Path\nimport pathlib\np = pathlib.Path('/data') / request.args['p']\np.read_text()",
            "path",
        ),
        ("import requests\nrequests.get(request.json['url'])", "ssrf"),
        ("return redirect(request.args['next'])", "redirect"),
        ("return 'hello ' + request.args['n']", "xss"),
        ("r = make_response('<b>%s</b>' % request.args['n'])", "xss"),
        ("from flask import render_template_string\nrender_template_string(request.args['t'])", "template"),
        ("import pickle\npickle.loads(request.data)", "deserialize"),
        ("import yaml\nyaml.load(request.data, Loader=yaml.Loader)", "deserialize"),
        ("import ldap3\nconn.search('o=x', f\"(uid={request.args['u']})\")", "ldap"),
        ("import lxml.etree\nroot.xpath('/a[@b=' + request.args['u'] + ']')", "xpath"),
        ("session['user'] = request.args['u']", "session"),
        ("import importlib\nimportlib.import_module(request.args['m'])", "import"),
        ("x = request.args['a'].strip().lower().split(',')\nfor each in x:\n    os.system(each)", "command"),
        ("d = {'safe': 'a', 'other': request.args['a']}\nos.system(d['other'])", "command"),
        ("x = None\nif request.args:\n    x = request.args['a']\nelse:\n    x = 'b'\nos.system(x)", "command"),
        ("try:\n    x = request.args['a']\nexcept KeyError:\n    x = ''\nos.system(x)", "command"),
        ("r = make_response('x')\nr.set_cookie('a', 'b', secure=False)", "cookie"),
        ("import shlex\nopen(shlex.quote(request.args['a']))", "path"),
        ("if (y := request.args['a']):\n    os.system(y)", "command"),
        ("os.system(' '.join([each for each in request.args.values()]))", "command"),
    ],
)
def test_what_is_sent_reaches_what_it_can_harm(body: str, harm: str) -> None:
    assert found(body) == [harm]


@pytest.mark.parametrize(
    "body",
    [
        "n = int(request.args['n'])\nos.system(f'head -{n}')",
        "import shlex\nos.system('ls ' + shlex.quote(request.args['n']))",
        "subprocess.run(['ls', '--', request.args['n']])",
        "import sqlite3\nsqlite3.connect('x').execute('select ?', (request.args['q'],))",
        "from werkzeug.utils import secure_filename\nopen(secure_filename(request.args['n']))",
        "n = request.args['n']\nif n not in ('a', 'b'):\n    return 'no'\nopen(n)",
        "n = request.args['n']\nif not n.isalnum():\n    raise ValueError\nopen(n)",
        "n = request.args['n']\nif '..' in n or '/' in n:\n    return 'no'\nopen('/data/' + n)",
        "n = request.args['n']\nn = 'fixed'\nos.system(n)",
        "d = {'safe': 'a', 'other': request.args['a']}\nos.system(d['safe'])",
        "a = ['x', request.args['a'], 'y']\na.pop(1)\nos.system(a[1])",
        "x = 'b' if 7 * 6 == 42 else request.args['a']\nos.system(x)",
        "match 'ABC'[1]:\n    case 'B':\n        x = 'b'\n    case _:\n        x = request.args['a']\nos.system(x)",
        "from markupsafe import escape\nreturn f'<b>{escape(request.args[\"n\"])}</b>'".replace('"', "'").replace("f'<b>{escape(request.args['n'])}</b>'", "'<b>' + escape(request.args['n'])"),
        "from flask import url_for\nreturn redirect(url_for(request.args['n']))",
        "return {'a': request.args['n']}",
        "from urllib.parse import urlparse\nn = request.args['n']\nu = urlparse(n)\nif u.netloc not in ['a.test'] or u.scheme != 'https':\n    return 'no'\nreturn redirect(n)",
        "os.system('ls ' + request.path)",
        "r = make_response('x')\nr.set_cookie('a', 'b', secure=True)",
        "import yaml\nyaml.load(request.data, Loader=yaml.SafeLoader)",
        "import re\nre.search('x', request.args['n'])",
    ],
)  # fmt: skip
def test_what_is_cleaned_checked_or_fixed_is_no_finding(body: str) -> None:
    assert found(body) == []


def test_a_flow_through_a_function_of_the_file_is_followed() -> None:
    head = (
        FLASK + "def helper(a, b):\n    return 'x' + b\ndef fixed(a):\n    return 'x'\ndef runs(c):\n    os.system(c)\n"
    )
    assert found("os.system(helper('a', request.args['x']))", head) == ["command"]
    assert found("os.system(fixed(request.args['x']))", head) == []
    assert found("runs(request.args['x'])", head) == ["command"]


def test_a_route_s_parameters_are_sent_too_but_not_its_numbers_and_dependencies() -> None:
    head = "import os\nfrom fastapi import FastAPI, Depends\napp = FastAPI()\n"
    route = "@app.get('/{n}')\nasync def other(n: str, k: int, d=Depends(x)):\n    os.system(n)\n    os.system(str(k))\n    os.system(d)\n"
    assert found("", head + route) == ["command"]


def test_other_frameworks_and_the_standard_library_send_too() -> None:
    assert found(
        "",
        "import os\nfrom django.http import HttpResponse\ndef v(request):\n    return HttpResponse(request.GET['q'])\n",
    ) == ["xss"]
    server = "import os\nfrom http.server import BaseHTTPRequestHandler\nclass H(BaseHTTPRequestHandler):\n    def do_GET(self):\n        open('.' + self.path)\n"
    assert found("", server) == ["path"]


def test_the_command_line_weighs_less_and_may_open_files() -> None:
    text = "import os, sys\nos.system('ls ' + sys.argv[1])\nopen(sys.argv[2])\n"
    hits = list(dataflow.inspect(File("a.py", Path("/nowhere"), 1, "python"), text))
    assert [(hit.rule, hit.severity, hit.confidence) for hit in hits] == [("dataflow.command", "medium", "low")]


def test_a_finding_tells_where_the_value_came_from() -> None:
    text = FLASK + "def view():\n    n = request.args.get('n')\n    os.system(n)\n"
    (hit,) = dataflow.inspect(File("a.py", Path("/nowhere"), 1, "python"), text)
    assert (hit.line, hit.cwe, hit.confidence) == (6, "CWE-78", "high")
    assert hit.message == "What comes from `request.args` (line 5) becomes part of a command in `os.system`."


def test_deep_and_odd_code_ends(tmp_path: Path) -> None:
    nested = (
        "x = request.args['a']\n"
        + "".join("    " * depth + f"if x{depth}:\n" for depth in range(60))
        + "    " * 60
        + "pass"
    )
    assert found(nested) == []
    calls = FLASK + "".join(f"def f{n}(a):\n    return f{(n + 1) % 9}(a) + f{(n + 2) % 9}(a)\n" for n in range(9))
    assert found("os.system(f0(request.args['x']))", calls) in ([], ["command"])
