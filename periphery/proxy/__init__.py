"""The proxy: in the sandbox, an HTTP(S) proxy on loopback in front of `ctx.web`, so that any program can use it."""

from periphery.proxy.opening import Proxy, open_proxy

__all__ = ["Proxy", "open_proxy"]
