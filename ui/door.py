"""Which requests get through to the page: of this page itself, and for looking only. ASGI, before anything of
Streamlit's.

Streamlit by itself trusts every page of this machine and asks a service outside for its address; it takes files from
whoever has a session, and lets itself be framed by others. It shows figures of its insides to who has no password
(`/_stcore/metrics`): of its own places, a reader has those that its page needs.

`/media/<hash>` (pictures, downloads) asks for no password. Nothing lists what is there; its name is a hash of its
content (BLAKE2b, 128 bits; above 1 MiB of its length and parts), which is told to the session that it was made for: who
knows the name has had the content, or that session's traffic. It is gone when no session shows it any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

METHODS = ("GET", "HEAD")
# Of Streamlit's own places: below `OWN` these alone, and nothing of what the page does without.
OWN = "_stcore"
NEEDED = frozenset({"/_stcore/health", "/_stcore/host-config", "/_stcore/stream"})
UNUSED = frozenset({OWN, "auth", "oauth2callback", "component", "app"})
HOME = "/overview"  # the page at /, which Streamlit does not find by its own name
# Streamlit's script looks for its server below the page's own address first (/devices/_stcore/health), unless it is
# told where it is (static/js, `BACKEND_BASE_URL`).
HEAD = b"<head>"
TOLD = HEAD + b"<script>window.__streamlit = {BACKEND_BASE_URL: new URL('.', location.href).href}</script>"
# Nobody may show the page within his own (clickjacking); it talks to where it came from and to nobody else.
HEADERS = (
    (b"content-security-policy", b"frame-ancestors 'none'; connect-src 'self'; object-src 'none'; base-uri 'self'"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Door:
    """`hosts`: the names under which the page may be asked for, lower case; empty: any.

    A page without a password is asked for by this machine's names alone: a name of another site that leads here (DNS
    rebinding) would let that site's scripts in.
    """

    def __init__(self, app: App, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        if scope["type"] == "websocket" and not self._may_talk(dict(scope["headers"])):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http" and (status := self._fault(scope)):
            await send({"type": "http.response.start", "status": status, "headers": list(HEADERS)})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "http" and scope["path"] == HOME:
            await send({"type": "http.response.start", "status": 307, "headers": [*HEADERS, _home(scope)]})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "http":
            await self._app(_unpacked(scope), receive, _told(_with_headers(send)))
        else:
            await self._app(scope, receive, send)

    def _may_talk(self, headers: dict[bytes, bytes]) -> bool:
        """A browser names the page whose script asks; what is no browser names none."""
        origin = headers.get(b"origin")
        own = origin is None or urlsplit(origin.decode("latin-1")).netloc == _host(headers)
        return own and self._is_known(headers)

    def _fault(self, scope: Message) -> int:
        if not self._is_known(dict(scope["headers"])):
            return 403
        if scope["method"] not in METHODS:
            return 405
        return 0 if _is_needed(scope["path"]) else 404

    def _is_known(self, headers: dict[bytes, bytes]) -> bool:
        return not self._hosts or name_in(_host(headers)) in self._hosts


def _is_needed(path: str) -> bool:
    return path in NEEDED or path.lstrip("/").split("/", 1)[0] not in UNUSED


def name_in(host: str) -> str:
    """The name in a Host header, without its port; empty for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _host(headers: dict[bytes, bytes]) -> str:
    return headers.get(b"host", b"").decode("latin-1")


def _with_headers(send: Send) -> Send:
    async def also(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in HEADERS}
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in given]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return also


def _home(scope: Message) -> tuple[bytes, bytes]:
    query: bytes = scope["query_string"]
    return b"location", b"./?" + query if query else b"./"


def _unpacked(scope: Message) -> Message:
    """Pages, which are one level deep, are asked for uncompressed: what is compressed cannot be told anything."""
    if scope["path"].count("/") > 1:
        return scope
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]}


def _told(send: Send) -> Send:
    """The page itself comes whole, and with `TOLD`; all else goes through."""
    held: list[Message] = []

    async def also(message: Message) -> None:
        if message["type"] == "http.response.start" and _is_page(message):
            held.append(message)
        elif not held:
            await send(message)
        elif message["type"] == "http.response.body":
            held.append(message)
            if not message.get("more_body"):
                await _send_told(held, send)

    return also


def _is_page(start: Message) -> bool:
    headers = dict(start["headers"])
    is_text = bool(headers.get(b"content-type", b"").startswith(b"text/html"))
    return is_text and start["status"] == 200 and b"content-encoding" not in headers


async def _send_told(held: list[Message], send: Send) -> None:
    start, *parts = held
    whole = b"".join(part.get("body", b"") for part in parts).replace(HEAD, TOLD, 1)
    lengths = dict(start["headers"]).get(b"content-length", b"0")
    length = len(whole) if whole else int(lengths) + len(TOLD) - len(HEAD)  # as for GET, where only the head is asked
    kept = [pair for pair in start["headers"] if pair[0] != b"content-length"]
    await send({**start, "headers": [*kept, (b"content-length", b"%d" % length)]})
    await send({"type": "http.response.body", "body": whole})
