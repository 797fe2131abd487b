"""The core: one trusted process. `core.app` is read first."""

VERSION = "0.1.0"
