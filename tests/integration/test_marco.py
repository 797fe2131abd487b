"""Marco at work: a real Chromium in a real sandbox, the lab's own broker, and a small world of pages on loopback."""

import json
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from protos.ids import new_id
from protos.v1.message_pb2 import KIND_CALL, KIND_FAULT, KIND_REPLY, TAINT_WEB, Message, Terms
from tests.browsing import WITHIN_S, World, a_world
from tests.labs import ask
from tests.model_server import ModelServer, Play, Request, model_server
from tests.orchestras import KEY

pytestmark = pytest.mark.docker

QUESTION = "When was the bridge built?"
FILE = b"\x00\x01" * 500
FOUND = "The bridge was built in 1887 by Ada Keller."


def scripted(request: Request) -> Play:
    """A model that quotes one sentence that stands there and one that does not, and leads on to the second link."""
    if "Which link" in json.dumps(request.body):
        return Play(text='{"link": 1}')
    quotes = [{"passage": 1, "text": FOUND}, {"passage": 1, "text": "The bridge is made of chocolate and air."}]
    return Play(text=json.dumps({"quotes": quotes, "answer": "In 1887."}))


@pytest.fixture(scope="module")
async def model(anyio_backend: str) -> AsyncIterator[ModelServer]:
    async with model_server(scripted) as server:
        yield server


@pytest.fixture(scope="module")
async def world(model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.touch(mode=0o600)
    key.write_text(KEY)
    settings = f"""
[providers.here]
kind = "openai"
base_url = "{model.openai}"
key_file = "{key}"
[models.one]
provider = "here"
model = "scripted"
max_tokens = 2000
"""
    async with a_world(settings) as world:
        yield world


READ = """<!doctype html><title>The\u200b bridge</title><base href={OTHER}/base/>
<nav><a href=/menu>Menu</a></nav>
<main><h1>The <em>old</em> bridge</h1>
<p>Built in <b>1887</b>, see <a href=page?a=1>the page</a> and <a href="javascript:alert(1)">this</a>.
It is 2*3 metres_wide [sic] <br>and strong.</p>
<p style="display:none">Nobody sees this.</p>
<ul><li>one<li>two<ol><li>two and a half</ol></ul>
<blockquote><p>Said somebody.</p><p>Twice.</p></blockquote>
<pre>x = 1
  y = 2</pre>
<table><caption>Spans</caption><tr><th>Name<th>Metres<tr><td>First<td>12|5<tr><td>Second<td>30</table>
<table><tr><td><p>laid out</p><table><tr><td>in a table</table></table>
<img src=i.png alt="A picture of it"><div id=shadow></div>
<iframe srcdoc="<p>In a frame</p>"></iframe><iframe src={OTHER}/frame></iframe>
</main><footer>Imprint, and much more of what stands at the end of each page of a site that nobody reads.</footer>
<script>document.getElementById('shadow').attachShadow({mode: 'closed'}).innerHTML = '<p>In the shadow</p>';
document.querySelector('main').insertAdjacentHTML('beforeend', '<p>Written by a script, and long enough: '
  + 'a page is about what stands in it, where that is the most of what can be read on the page. ' + 1 + 1)</script>"""

MARKDOWN = """# The *old* bridge

Built in **1887**, see [the page](<{OTHER}/base/page?a=1>) and this. It is 2\\*3 metres_wide \\[sic\\]  
and strong.

- one
- two

  1. two and a half

> Said somebody.
>
> Twice.

```
x = 1
  y = 2
```

Spans

| Name | Metres |
| --- | --- |
| First | 12\\|5 |
| Second | 30 |

laid out

in a table

A picture of it

In the shadow

In a frame

In a frame of another site

Written by a script, and long enough: a page is about what stands in it, where that is the most of what can be read on the page. 11
"""  # noqa: E501, W291


async def test_a_page_is_read_as_a_person_would_read_it(world: World) -> None:
    world.page("other.test/frame", "<p>In a frame of another site</p>")
    url = world.page("site.test/read", READ)
    answer = await world.call(urls=[url], screenshot=True, snapshot=True)
    assert answer.kind == KIND_REPLY, answer.text
    assert TAINT_WEB in answer.taint
    result = await world.data(answer)
    [page] = result["pages"]
    assert page["markdown"] == MARKDOWN.replace("{OTHER}", f"http://other.test:{world.port}")
    assert (page["title"], page["status"], page["problem"], page["hidden"]) == ("The bridge", 200, "", 17)
    assert page["links"] == [
        {"text": "Menu", "url": world.url("other.test/menu")},
        {"text": "the page", "url": world.url("other.test/base/page?a=1")},
    ]
    assert page["tables"] == [{"caption": "Spans", "rows": [["Name", "Metres"], ["First", "12|5"], ["Second", "30"]]}]
    assert f'- link "the page" → {world.url("other.test/base/page?a=1")}' in page["outline"]
    assert result["outcome"] == "succeeded"
    blobs = {each.name: each for each in answer.blobs}
    assert (await world.blob(blobs["page-1.md"].digest)).decode() == page["markdown"]
    assert (await world.blob(blobs["page-1.png"].digest)).startswith(b"\x89PNG\r\n")


FORM = """<title>Form</title><form action=/found><label>Search <input name=q></label>
<select name=kind aria-label=Kind><option>one<option>two</select><button>Go</button></form>
<a href=/window target=_blank>In a window</a>
<button onclick="setTimeout(() => document.body.append('arrived'), 300)">Later</button>
<div style="height:2000px"></div><p id=lazy></p><script>
new IntersectionObserver(([each]) => { if (each.isIntersecting) lazy.textContent = 'seen at last' }).observe(lazy)
</script>"""


async def test_steps_are_taken_as_a_person_would_take_them(world: World) -> None:
    url = world.page("site.test/form", FORM, headers={"Set-Cookie": "seen=yes"})
    world.page("site.test/found", "<p>found it</p><a href=/form>back</a>")
    world.page("site.test/window", "<p>the window's page</p>")
    steps = [
        {"do": "click", "target": 'button "Later"'},
        {"do": "wait_for", "text": "arrived"},
        {"do": "scroll", "screens": 3},
        {"do": "wait_for", "text": "seen at last", "seconds": 20},
        {"do": "evaluate", "script": "({title: document.title, cookie: document.cookie})"},
        {"do": "click", "target": 'link "In a window"'},
        {"do": "evaluate", "script": "document.body.innerText"},
        {"do": "navigate", "url": url},
        {"do": "type", "target": 'combobox "Kind"', "text": "two"},
        {"do": "type", "target": 'textbox "Search"', "text": "a bridge", "submit": True},
        {"do": "wait_for", "target": 'link "back"'},
    ]
    result = await world.result(urls=[url], steps=steps, snapshot=True)
    [page] = result["pages"]
    assert page["problem"] == ""
    assert [json.loads(each) for each in page["values"]] == [
        {"title": "Form", "cookie": "seen=yes"},
        "the window's page",
    ]
    assert page["address"] == world.url("site.test/found?q=a+bridge&kind=two")
    assert page["outline"] == f'- link "back" → {url}'
    cookies = [asked.headers.get("cookie") for place, asked in world.asked if place.startswith("site.test/found")]
    assert cookies == ["seen=yes"]


async def test_a_file_is_downloaded_by_its_address_and_by_what_leads_to_it(world: World) -> None:
    url = world.page("site.test/files", "<a href=/file.bin>File</a><p>here")
    world.page("site.test/file.bin", "", content=FILE, type="application/octet-stream")
    downloads: list[dict[str, Any]] = []

    async def download(**arguments: str) -> None:
        downloads.extend((await world.result("download", **arguments))["downloads"])

    async with create_task_group() as tasks:
        tasks.start_soon(partial(download, url=url, target='link "File"'))
        tasks.start_soon(partial(download, url=world.url("site.test/file.bin")))
    for each in downloads:
        assert (each["name"], each["size"]) == ("file.bin", 1000)
        assert each["digest"] == f"sha256:{sha256(FILE).hexdigest()}"
    assert len(downloads) == 2


async def test_what_does_not_work_is_told_and_the_rest_is_done(world: World) -> None:
    fine = world.page("site.test/fine", "<p>fine")
    world.page("site.test/gone", "", status=302, headers={"Location": f"http://evil.test:{world.port}/"})
    nowhere = {"do": "click", "target": 'button "Nowhere"'}
    partly: list[dict[str, Any]] = []
    faults: dict[str, Message] = {}

    async def visit() -> None:
        partly.append(await world.result(urls=[world.url("site.test/gone"), world.url("site.test/lost"), fine]))

    async def fail(how: str, **arguments: Any) -> None:
        faults[how] = await world.call(**arguments)

    async with create_task_group() as tasks:
        tasks.start_soon(visit)
        tasks.start_soon(partial(fail, "nowhere", urls=[fine], steps=[nowhere]))
        tasks.start_soon(partial(fail, "no web", urls=["file:///etc/passwd"]))
        tasks.start_soon(partial(fail, "not allowed", urls=[world.url("evil.test/")]))
        tasks.start_soon(partial(fail, "nothing", urls=[fine], steps=[{"do": "click"}]))
    [result] = partly
    assert "rule default" in result["pages"][0]["problem"]
    assert (result["pages"][1]["status"], result["pages"][2]["markdown"]) == (404, "fine\n")
    assert result["outcome"] == "partial"
    assert {each.kind for each in faults.values()} == {KIND_FAULT}
    assert {how: json.loads(each.data)["code"] for how, each in faults.items()} == {
        "nowhere": "not_found",
        "no web": "invalid_argument",
        "not allowed": "permission_denied",
        "nothing": "invalid_argument",
    }


async def test_whoever_asks_may_narrow_what_is_reached(world: World) -> None:
    url = world.page("site.test/narrow", "<p>text</p><script src={OTHER}/s.js></script>")
    world.page("other.test/s.js", "document.body.append('by a script')", type="text/javascript")
    question = Message(id=new_id(), conversation=new_id(), recipient="marco", kind=KIND_CALL, tool="browse")
    question.data = json.dumps({"urls": [url]})
    question.terms.CopyFrom(Terms(web=[f"site.test:{world.port}"]))
    [page] = (await world.data(await ask(world.lab, question, within_s=WITHIN_S)))["pages"]
    assert page["markdown"] == "text\n"
    [refused] = page["refused"]
    assert "other.test" in refused


async def test_a_form_that_writes_waits_for_a_person_and_what_a_page_sends_by_itself_does_not_leave(
    world: World,
) -> None:
    url = world.page(
        "site.test/order",
        "<form action=/ordered method=post><input name=what value=tea><button>Order</button></form>"
        "<script>fetch('/tracked', {method: 'POST', body: 'x'}).catch(() => 0)</script>",
    )
    world.page("site.test/ordered", "<p>thank you")
    found: list[str] = []

    async def order() -> None:
        [page] = (await world.result("click", url=url, target='button "Order"'))["pages"]
        found.append(page["markdown"])

    with fail_after(WITHIN_S):
        async with create_task_group() as tasks, world.lab.rogers.follow() as messages:
            tasks.start_soon(order)
            async for each in messages:
                if "waits for approval" in each.text:
                    await world.lab.services.approvals.approve(json.loads(each.data)["approval"], by="operator")
                    break
    assert found == ["thank you\n"]
    posted = [(place, asked.body) for place, asked in world.asked if asked.line.startswith("POST")]
    assert posted == [("site.test/ordered", b"what=tea")]


async def test_an_answer_has_quotes_that_stand_on_the_pages(world: World) -> None:
    url = world.page("site.test/bridge", f"<h1>Bridge</h1><p>{FOUND}</p><p>Much else.</p>")
    result = await world.result(urls=[url], goal=QUESTION, model="one")
    assert result["answer"] == "In 1887."
    assert result["quotes"] == [{"text": FOUND, "url": url}]
    assert (result["unfounded"], result["model"], result["outcome"]) == (1, "scripted", "succeeded")


async def test_without_a_model_the_pages_are_read_all_the_same(world: World) -> None:
    url = world.page("site.test/bridge", f"<p>{FOUND}</p>")
    result = await world.result(urls=[url], goal=QUESTION, model="none-of-that-name")
    assert result["pages"][0]["markdown"] == f"{FOUND}\n"
    assert (result["answer"], result["outcome"]) == ("", "partial")
    assert "was not answered" in result["reason"]


async def test_research_follows_links_of_the_page_by_their_numbers(world: World) -> None:
    start = world.page("site.test/start", "<p>About bridges.</p><a href=/bridge-built>When the bridge was built</a>")
    world.page("site.test/bridge-built", f"<p>{FOUND}</p><a href={{EVIL}}/>more</a>")
    result = await world.result("research", question=QUESTION, urls=[start], pages=3, model="one")
    assert [each["url"] for each in result["pages"]][:2] == [start, world.url("site.test/bridge-built")]
    assert result["quotes"] == [{"text": FOUND, "url": world.url("site.test/bridge-built")}]


async def test_a_large_download_goes_to_quarantine_and_not_through_the_browser(world: World) -> None:
    content = bytes(range(256)) * 4096 * 24  # 24 MiB: more than the browser is handed
    world.page("site.test/large.iso", "", content=content, type="application/x-iso9660-image")
    result = await world.result("download", url=world.url("site.test/large.iso"))
    [download] = result["downloads"]
    assert (download["size"], download["digest"]) == (len(content), f"sha256:{sha256(content).hexdigest()}")
