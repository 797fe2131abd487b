"""What an operator says of the way out: `[egress]` in madlab.toml. Who may go where is policy's, not said here."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from core.egress.urls import canonical
from protos.errors import InvalidArgument


def _addresses(value: object) -> object:
    """One address or several."""
    each = [value] if isinstance(value, str) else value
    if isinstance(each, list | tuple):
        for address in each:
            ip_address(address)
    return each


HostName = Annotated[str, Field(pattern=r"^[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?$")]
Addresses = Annotated[tuple[str, ...], BeforeValidator(_addresses), Field(min_length=1, max_length=16)]


def _bases(value: object) -> object:
    """One address or several; a variable holds several between blanks."""
    each = value.split() if isinstance(value, str) else value
    if isinstance(each, list | tuple):
        for address in each:
            try:
                canonical(str(address))
            except InvalidArgument as error:
                raise ValueError(error.message) from None
    return each


Bases = Annotated[tuple[str, ...], BeforeValidator(_bases)]


class PackagesSettings(BaseModel):
    """Where packages come from, under rules that say `packages = true`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pip: Bases = ()  # the addresses of indexes; none is asked that is not named here
    npm: Bases = ()
    apt: Bases = ()  # of archives: what stands before dists/ and pool/
    min_age_days: Annotated[float, Field(ge=0, le=3650)] = 7  # what is younger is not there yet
    undated: bool = False  # take what an index does not tell the age of


class Egress(BaseModel):
    """How requests of runs leave."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: dict[HostName, Addresses] = {}  # like a hosts file: host → its addresses, which are not asked for
    ca_file: Path | None = None  # certificates of an intranet's authority, PEM, beside the system's
    seconds: Annotated[float, Field(gt=0, le=86400)] = 600  # the most that one request may take
    idle_s: Annotated[float, Field(gt=0, le=3600)] = 60  # without a byte, either way
    connect_s: Annotated[float, Field(gt=0, le=300)] = 10  # name, connection and TLS together
    answer_mb: Annotated[int, Field(ge=1)] = 1024  # the most that one answer may bring
    upload_mb: Annotated[int, Field(ge=1)] = 1024  # the most that one request may carry
    at_once: Annotated[int, Field(ge=1, le=1000)] = 32  # requests of one run; one more waits
    packages: PackagesSettings = PackagesSettings()
