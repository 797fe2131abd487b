"""`ctx.secrets`, as a MAD sees it: what was granted to it, never a value; and a vault that is open with its lab."""

import pytest

from core.policy.capabilities import Identity
from core.ports.context import context_for
from core.ports.services import unlimited
from core.turing.places import place_of
from core.turing.secret import Secret
from core.upkeep import tend_once
from protos.errors import Denied
from protos.mad import Context
from protos.v1.session_pb2 import Assignment
from tests.labs import a_home, opened

VALUE = b"tok-5e8d1c0b7a-first"
SETTINGS = '[vault]\nkey_file = "vault.key"\nlease_s = 0\n'


async def test_a_mad_sees_what_was_granted_to_it_and_no_value() -> None:
    with a_home(SETTINGS) as home:
        async with opened(home) as lab:
            turing = lab.services.turing
            assert turing is not None

            def context(*ports: str) -> Context:
                me = Identity("marco", frozenset(ports), run="marco-1")
                return context_for(lab.services, me, Assignment(), unlimited())

            with pytest.raises(Denied, match="rule port: marco may not use secrets"):
                await context("web").secrets.list()
            assert list(await context("secrets").secrets.list()) == []
            await turing.custody.set("token", Secret(VALUE))
            get, any_method = frozenset({"GET"}), frozenset[str]()
            place = place_of("api.example.org:8443/repos")
            await turing.grant("g1", "token", "mad:marco", place, get, "header:Authorization=Bearer {}", uses=3)
            await turing.grant("g2", "token", "run:marco-1", place_of("[2001:db8::1]"), any_method, "", expires=9e9)
            await turing.grant("g3", "token", "mad:hopper", place, get, "")
            of_run, of_mad = await context("secrets").secrets.list()
            assert (of_mad.name, of_mad.host, of_mad.path) == ("token", "api.example.org:8443", "/repos")
            assert (list(of_mad.methods), of_mad.use, of_mad.uses_left) == (["GET"], "header:Authorization", 3)
            assert (of_run.host, of_run.path, list(of_run.methods), of_run.use) == ("[2001:db8::1]", "", [], "")
            assert (of_run.expires, of_run.HasField("uses_left")) == (9e9, False)
            await turing.revoke([grant for grant in turing.grants.all() if grant.id == "g2"])
            assert [each.host for each in await context("secrets").secrets.list()] == ["api.example.org:8443"]
        async with opened(home) as lab:  # another core finds the vault open, its grants, and a redactor that knows
            turing = lab.services.turing
            assert turing is not None
            assert turing.state.state == "open"
            assert [each.id for each in turing.handles(("mad:marco",))] == ["g1"]
            assert lab.services.redactor.redact(b"said: " + VALUE) == b"said: [secret token]"
            await tend_once(lab.services, lab.config)
