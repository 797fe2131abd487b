"""The door's routes to the vault: secrets by name, grants, uses. Values come in, and none goes out.

What is here is the operator's alone, as everything on this socket. A value travels in the body of a request, base64 in
JSON; no answer, no error and no log holds one. An exported vault is sealed before it leaves.
"""

import base64
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.grace.door import answers
from core.grace.door.answers import Answer
from core.grace.door.edge import INTEGRAL, Empty, Strict, json_of, lab_of, number_of, told
from core.grace.door.routes import Endpoint, number
from core.lab import Lab
from core.turing.grants import Grant, Use
from core.turing.headers import NAME, adding_of
from core.turing.places import place_of
from core.turing.principals import NAMED, principal_of
from core.turing.secret import MAX_BYTES, Secret
from core.turing.turing import Turing
from core.turing.vault import Version
from protos.errors import Conflict, InvalidArgument, NotFound

VAULT_BYTES = 64 << 20  # of an exported vault
MOST_USES = 1000
B64 = "[A-Za-z0-9+/]"
BASE64 = re.compile(f"(?:{B64}{{4}}){{2,}}(?:{B64}{{3}}=|{B64}{{4}}|{B64}{{6}}==)")  # of 8 bytes and more
ANY = "any"  # method
METHOD = rf"^({ANY}|[A-Z][A-Z-]{{0,19}})$"

Passphrase = Annotated[str | None, Field(max_length=1024)]


class LockBody(Strict):
    """What opens the vault, where that is a passphrase."""

    passphrase: Passphrase = None


class SealBody(Strict):
    """What an exported vault is sealed with."""

    passphrase: Annotated[str, Field(max_length=1024)]


class _ImportHead(Strict):
    """The first line of an import; the file follows."""

    passphrase: Annotated[str, Field(max_length=1024)]
    replace: bool = False


class ValueBody(Strict):
    """A value, in base64."""

    value: Annotated[str, Field(max_length=2 * MAX_BYTES), told(BASE64)]
    at_once: bool = False


class GrantBody(Strict):
    """Who may use a secret where, and how long."""

    id: Annotated[str, Field(pattern="^[a-z0-9]{6,32}$")]
    to: Annotated[str, Field(max_length=200), told(NAMED)]
    place: Annotated[str, Field(max_length=2000)]
    methods: Annotated[
        tuple[Annotated[str, Field(pattern=METHOD)], ...],
        Field(min_length=1, max_length=20, description=f'["{ANY}"] for every method; an empty list is refused'),
    ] = ("GET",)
    use: Annotated[str, Field(max_length=500)] = ""
    ttl_s: Annotated[float | None, Field(gt=0, le=10 * 366 * 86_400)] = None
    uses: Annotated[int, Field(ge=1, le=2**53), INTEGRAL] | None = None


class RevokeBody(Strict):
    """Which grants end: one, those of one principal, or all there are of the secret."""

    id: str = ""
    to: Annotated[str, told(NAMED, or_empty=True)] = ""


class VersionNow(Answer):
    """One version of a secret."""

    name: str
    version: int
    state: str
    created: answers.Moment
    retires: answers.Moment | None


class VersionHeld(VersionNow):
    """One version of a secret, with who holds a lease on it."""

    leases: list[dict[str, Any]]


class Versions(Answer):
    """All versions of a secret."""

    versions: list[VersionHeld]


class Rotated(VersionNow, Versions):
    """The new version, and all there are."""


class Made(VersionNow):
    """The first version, and the vault that holds it."""

    vault: answers.Vault


class Sealed(Answer):
    """An exported vault, in base64."""

    file: str


class TakenIn(Answer):
    """Names that were taken in, and names that were left as they are."""

    taken: list[str]
    left: list[str]


class SecretNow(Answer):
    """A secret, without its value."""

    name: str
    version: int
    created: answers.Moment
    grants: int
    uses: int
    last: answers.Moment | None


class Secrets(Answer):
    """All secrets."""

    vault: answers.Vault
    secrets: list[SecretNow]


class Removed(Answer):
    """A secret that is gone."""

    removed: str


class GrantNow(Answer):
    """Who may use a secret where."""

    id: str
    name: str
    principal: str
    place: str
    methods: list[str]
    use: str
    state: Literal["held", "revoked", "spent", "expired"]
    made: answers.Moment
    expires: answers.Moment | None
    uses_left: int | None
    used: int
    last: answers.Moment | None


class Grants(Answer):
    """Who could use a secret: by grants, and as the key of a provider."""

    grants: list[GrantNow]
    ended: list[GrantNow]
    providers: list[dict[str, Any]]


class Revoked(Answer):
    """Grants that have ended."""

    revoked: list[GrantNow]


class Uses(Answer):
    """Who used a secret."""

    uses: list[Use]
    providers: list[dict[str, Any]]


def routes() -> Iterator[Endpoint]:
    """What this part of the door answers."""
    yield Endpoint("GET", "/vault", _vault, "How the vault is.", answer=answers.Vault)
    yield Endpoint("POST", "/vault", _create, "Makes the vault.", body=LockBody, answer=answers.Vault, status=201)
    yield Endpoint("POST", "/vault/unlock", _unlock, "Opens the vault.", body=LockBody, answer=answers.Vault)
    yield Endpoint(
        "POST", "/vault/rekey", _rekey, "Gives the vault a new key.", body=LockBody, answer=answers.Vault, local=True
    )
    yield Endpoint(
        "POST", "/vault/export", _export, "Every value, sealed with a passphrase.",
        body=SealBody, answer=Sealed, local=True,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/vault/import", _import, "Takes in an exported vault: a line of JSON, then the file.",
        takes="application/octet-stream", answer=TakenIn, local=True,
    )  # fmt: skip
    yield Endpoint("GET", "/secrets", _list, "Secrets by name; no value.", answer=Secrets)
    yield Endpoint(
        "PUT", "/secrets/{name}", _set, "Sets a secret.",
        parts={"name": re.compile(NAME)}, body=ValueBody, answer=Made, status=201,
    )  # fmt: skip
    yield Endpoint(
        "POST", "/secrets/{name}/rotate", _rotate, "Gives a secret a new value.",
        body=ValueBody, answer=Rotated, status=201,
    )  # fmt: skip
    yield Endpoint("POST", "/secrets/{name}/remove", _remove, "Removes a secret.", body=Empty, answer=Removed)
    yield Endpoint("GET", "/secrets/{name}/versions", _versions, "Its versions, with leases.", answer=Versions)
    yield Endpoint("GET", "/secrets/{name}/grants", _grants, "Who could use it.", answer=Grants)
    yield Endpoint(
        "POST", "/secrets/{name}/grants", _grant, "Grants its use. The same id again is the same grant.",
        body=GrantBody, answer=GrantNow, status=201,
    )  # fmt: skip
    yield Endpoint("POST", "/secrets/{name}/revoke", _revoke, "Ends grants.", body=RevokeBody, answer=Revoked)
    yield Endpoint(
        "GET", "/secrets/{name}/uses", _uses, "Who used it, the latest first.",
        query=(number("limit", "at most so many", default=100),), answer=Uses,
    )  # fmt: skip


def vault_json(lab: Lab) -> dict[str, Any]:
    """How the vault is, for the status too."""
    return asdict(_turing(lab).state)


# --- the vault


async def _vault(request: Request) -> Response:
    return JSONResponse(vault_json(lab_of(request)))


async def _create(request: Request) -> Response:
    body = await json_of(request, LockBody)
    await _of(request).custody.create(body.passphrase)
    return JSONResponse(vault_json(lab_of(request)), 201)


async def _unlock(request: Request) -> Response:
    body = await json_of(request, LockBody)
    await _of(request).custody.unlock(body.passphrase)
    return JSONResponse(vault_json(lab_of(request)))


async def _rekey(request: Request) -> Response:
    body = await json_of(request, LockBody)
    await _of(request).custody.rekey(body.passphrase)
    return JSONResponse(vault_json(lab_of(request)))


async def _export(request: Request) -> Response:
    body = await json_of(request, SealBody)
    file = await _of(request).custody.export(body.passphrase)
    return JSONResponse({"file": base64.b64encode(file).decode()})


async def _import(request: Request) -> Response:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > VAULT_BYTES:
            raise InvalidArgument(f"An exported vault has at most {VAULT_BYTES} bytes.", next="Import it in parts.")
    line, _, file = bytes(content).partition(b"\n")
    try:
        head = _ImportHead.model_validate_json(line)
    except ValueError:
        raise InvalidArgument(
            "The import does not begin with its passphrase.", next="see core/grace/door/README.md"
        ) from None
    taken, left = await _of(request).custody.take_in(file, head.passphrase, replace=head.replace)
    return JSONResponse({"taken": taken, "left": left})


# --- secrets


async def _list(request: Request) -> Response:
    turing, now = _of(request), time.time()
    found = []
    for name in turing.names():
        grants = turing.grants.on(name)
        current = _version_json(turing.versions(name)[-1], now)
        found.append(
            {"name": name, "version": current["version"], "created": current["created"]}
            | {"grants": sum(each.holds(now) for each in grants)}
            | {
                "uses": sum(each.used for each in grants),
                "last": max((each.last for each in grants), default=0) or None,
            }
        )
    return JSONResponse({"vault": vault_json(lab_of(request)), "secrets": found})


async def _set(request: Request) -> Response:
    body = await json_of(request, ValueBody)
    with _value(body) as value:
        made = await _of(request).custody.set(request.path_params["name"], value)
    return JSONResponse(_version_json(made, time.time()) | {"vault": vault_json(lab_of(request))}, 201)


async def _rotate(request: Request) -> Response:
    body = await json_of(request, ValueBody)
    with _value(body) as value:
        made = await _of(request).custody.rotate(request.path_params["name"], value, at_once=body.at_once)
    return JSONResponse(_version_json(made, time.time()) | {"versions": _all_versions(request)}, 201)


async def _remove(request: Request) -> Response:
    await json_of(request, Empty)
    await _of(request).custody.remove(request.path_params["name"])
    return JSONResponse({"removed": request.path_params["name"]})


async def _versions(request: Request) -> Response:
    return JSONResponse({"versions": _all_versions(request)})


def _all_versions(request: Request) -> list[dict[str, Any]]:
    """Every version, with who holds a lease on it."""
    turing, name, now = _of(request), request.path_params["name"], time.time()
    leases = turing.grants.leases_on(name, now)
    return [
        _version_json(each, now)
        | {
            "leases": [
                {"principal": principal, "until": lease.until, "uses": lease.uses}
                for principal, lease in leases
                if lease.version == each.version
            ]
        }
        for each in turing.versions(name)
    ]


def _version_json(version: Version, now: float) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "state": version.state(now),
        "created": version.created,
        "retires": version.retires,
    }


def _value(body: ValueBody) -> Secret:
    try:
        return Secret(base64.b64decode(body.value, validate=True))
    except ValueError:  # also of what is no ASCII
        raise InvalidArgument("value: it is no base64.", next="see core/grace/door/README.md") from None


# --- grants


async def _grants(request: Request) -> Response:
    """Who could use it now: by grants, and as the key of a provider."""
    lab, name, now = lab_of(request), request.path_params["name"], time.time()
    grants = _known(request)
    return JSONResponse(
        {
            "grants": [_grant_json(each, now) for each in grants if each.holds(now)],
            "ended": [_grant_json(each, now) for each in grants if not each.holds(now)],
            "providers": [
                {"provider": provider, "principal": "mad:fiedler", "address": each.address}
                for provider, each in lab.config.providers.items()
                if each.key_secret == name
            ],
        }
    )


async def _grant(request: Request) -> Response:
    body = await json_of(request, GrantBody)
    turing, name, to = _of(request), request.path_params["name"], principal_of(body.to)
    if turing.grants.get(body.id) is None:
        await _check_at_work(lab_of(request), to)
    made = await turing.grant(
        body.id,
        name,
        to,
        place_of(body.place),
        _methods(body),
        body.use,
        expires=time.time() + body.ttl_s if body.ttl_s is not None else 0.0,
        uses=body.uses,
    )
    return JSONResponse(_grant_json(made, time.time()), 201)


async def _check_at_work(lab: Lab, principal: str) -> None:
    """
    Raises:
        Conflict: it is a run that has ended, so the grant would be nobody's. One that nobody knows may still come.
    """
    family, _, id = principal.partition(":")
    if family != "run":
        return
    try:
        run = await lab.runs.get(id)
    except NotFound:
        return
    if not run.live:
        raise Conflict(f"the run {id} has ended", next=f"grant it to the next one, or to all of its MAD: mad:{run.mad}")


def _methods(body: GrantBody) -> frozenset[str]:
    """As a grant has them: none for any."""
    if body.methods == (ANY,):
        return frozenset()
    if ANY in body.methods:
        raise InvalidArgument(f"methods: {ANY} stands alone.", next=f'Write ["{ANY}"], or the methods.')
    return frozenset(body.methods)


async def _revoke(request: Request) -> Response:
    body, now = await json_of(request, RevokeBody), time.time()
    to = principal_of(body.to) if body.to else ""
    grants = [
        each for each in _known(request) if body.id in ("", each.id) and to in ("", each.principal) and not each.revoked
    ]
    if not grants:
        name = request.path_params["name"]
        raise NotFound(f"There is no such grant of {name}.", next=f"See: madlab secret who-could {name}")
    await _of(request).revoke(grants)
    return JSONResponse({"revoked": [_grant_json(each, now) for each in grants]})


async def _uses(request: Request) -> Response:
    """Who did, the latest first; and how often a provider's key was."""
    lab, name = lab_of(request), request.path_params["name"]
    _known(request)
    uses = await _of(request).grants.uses(name, limit=number_of(request, "limit", 100, MOST_USES))
    providers = []
    for provider, each in lab.config.providers.items():
        if each.key_secret == name:
            ((count, last),) = await lab.journal.query(
                "SELECT count(*), max(at) FROM calls WHERE provider = ? AND reason NOT LIKE ?",
                (provider, f"%The key of {provider}, secret://%"),  # then it had none
            )
            providers.append({"provider": provider, "principal": "mad:fiedler", "requests": count, "last": last})
    return JSONResponse({"uses": [asdict(each) for each in uses], "providers": providers})


def _known(request: Request) -> list[Grant]:
    """The grants of the secret that is asked for.

    Raises:
        NotFound: there is no such secret, and never was a grant of one.
    """
    turing, name = _of(request), request.path_params["name"]
    grants = turing.grants.on(name)
    if not grants:
        turing.versions(name)
    return grants


def _grant_json(grant: Grant, now: float) -> dict[str, Any]:
    state = "held"
    if not grant.holds(now):
        state = "revoked" if grant.revoked else "spent" if grant.uses_left == 0 else "expired"
    return {
        "id": grant.id,
        "name": grant.name,
        "principal": grant.principal,
        "place": str(grant.place),
        "methods": sorted(grant.methods),
        "use": str(adding_of(grant.use) or ""),
        "state": state,
        "made": grant.made,
        "expires": grant.expires or None,
        "uses_left": grant.uses_left,
        "used": grant.used,
        "last": grant.last or None,
    }


def _of(request: Request) -> Turing:
    return _turing(lab_of(request))


def _turing(lab: Lab) -> Turing:
    assert lab.services.turing is not None
    return lab.services.turing
