"""`[vault]` of madlab.toml: what opens the vault when the core starts."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Way = Literal["key_file", "passphrase", "system"]


class Vault(BaseModel):
    """How a vault is locked when it is made, or when it gets a new key, and how long a lease lasts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unlock: Way = "key_file"
    key_file: Path | None = None  # relative to the home; None: ~/.config/madlab/vault-LAB.key
    passphrase_file: Path | None = None  # read at the start; 0600, or a credential of systemd
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")] | None = None  # systemd's LoadCredential name
    lease_s: Annotated[float, Field(ge=0, le=86_400)] = 300  # so long a rotated value stays with who began with it

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.passphrase_file is not None and self.credential is not None:
            raise ValueError("has both passphrase_file and credential: leave one")
        return self
