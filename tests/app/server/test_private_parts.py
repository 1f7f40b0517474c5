"""The parts of uvicorn that are not documented, and that :mod:`app.server` needs as they are.

Each test fails with a sentence that names the part and the code that uses it, when another version changes it.
"""

import asyncio
import inspect
import socket
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

PROTOCOL = "app/server/http_protocol.py"
WORKER = "app/server/worker.py"


async def no_application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing."""


@pytest.fixture
def config() -> uvicorn.Config:
    return uvicorn.Config(no_application, lifespan="off", log_config=None)


def make_connection(kind: type[HttpToolsProtocol], config: uvicorn.Config) -> HttpToolsProtocol:
    """Return a connection as uvicorn makes one."""
    loop = asyncio.new_event_loop()
    made = kind(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    loop.close()
    made.connection_made(Mock(spec=asyncio.Transport, get_extra_info=Mock(return_value=None)))
    return made


@pytest.fixture
def protocol(config: uvicorn.Config) -> HttpToolsProtocol:
    return make_connection(HttpToolsProtocol, config)


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "connection_made": ["transport"],
        "connection_lost": ["exc"],
        "data_received": ["data"],
        "on_message_begin": [],
        "on_headers_complete": [],
        "on_body": ["body"],
        "on_message_complete": [],
        "on_response_complete": [],
        "pause_writing": [],
        "resume_writing": [],
        "send_400_response": ["msg"],
    }.items(),
)
def test_the_protocol_has_the_methods_that_ours_extends(name: str, expected: list[str]) -> None:
    method = getattr(HttpToolsProtocol, name, None)
    assert method, f"uvicorn's HttpToolsProtocol has no {name} any more; BoundedProtocol in {PROTOCOL} extends it"
    assert parameters(method) == expected, f"HttpToolsProtocol.{name} takes other arguments; {PROTOCOL} overrides it"


@pytest.mark.parametrize(
    ("name", "use"),
    {
        "transport": "closes it and writes problems to it",
        "connections": "refuses one too many by their number",
        "cycle": "asks it whether the last answer was sent",
        "parser": "asks it for the method and for keep-alive",
        "expect_100_continue": "closes the connection of an upload that it refuses, if the client waits with the body",
        "headers": "bounds them",
    }.items(),
)
def test_the_protocol_has_the_attributes_that_ours_reads(protocol: HttpToolsProtocol, name: str, use: str) -> None:
    assert hasattr(protocol, name), f"uvicorn's HttpToolsProtocol has no attribute {name} any more; {PROTOCOL} {use}"


def test_a_connection_counts_among_the_servers_connections(protocol: HttpToolsProtocol) -> None:
    assert protocol in protocol.connections, f"HttpToolsProtocol.connections holds no connection; {PROTOCOL} counts it"
    assert protocol.connections is protocol.server_state.connections, (
        f"ServerState.connections is another collection than the protocol's; {WORKER} waits until it is empty"
    )


def test_address_and_headers_of_a_message_are_collected_before_its_headers_are_complete(
    config: uvicorn.Config,
) -> None:
    seen: list[object] = []

    class Seeing(HttpToolsProtocol):
        def on_headers_complete(self) -> None:
            seen.extend((self.url, list(self.headers), self.expect_100_continue))
            seen.extend((self.parser.get_method(), self.parser.should_keep_alive()))

        def on_message_complete(self) -> None:
            """There is no cycle."""

    connection = make_connection(Seeing, config)
    connection.data_received(b"POST /a?b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n")
    headers = [(b"host", b"x"), (b"expect", b"100-continue"), (b"content-length", b"0")]
    assert seen == [b"/a?b", headers, True, b"POST", True], (
        f"HttpToolsProtocol has no url, headers (names in lower case) or expect_100_continue when it calls "
        f"on_headers_complete, or its parser no get_method or should_keep_alive; {PROTOCOL} bounds and sheds by them"
    )


def test_an_error_in_a_callback_of_the_parser_ends_in_send_400_response(config: uvicorn.Config) -> None:
    refused = Mock()

    class Failing(HttpToolsProtocol):
        def on_headers_complete(self) -> None:
            raise ValueError("too large")

        def send_400_response(self, msg: str) -> None:
            refused(msg)

    make_connection(Failing, config).data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert refused.called, (
        f"an exception of on_headers_complete no longer ends in send_400_response; {PROTOCOL} refuses headers so"
    )


def test_a_cycle_knows_whether_its_answer_was_sent() -> None:
    source = inspect.getsource(httptools_impl.RequestResponseCycle.__init__)
    assert "self.response_complete = False" in source, (
        f"uvicorn's RequestResponseCycle has no response_complete any more; {PROTOCOL} admits uploads by it"
    )


def test_a_protocol_class_is_an_option() -> None:
    class Ours(HttpToolsProtocol):
        """A class of our own."""

    ours = uvicorn.Config(no_application, http=Ours, lifespan="off", log_config=None)
    ours.load()
    assert ours.http_protocol_class is Ours, f"uvicorn's option http takes no class any more; {WORKER} passes one"


@pytest.mark.parametrize(("name", "expected"), [("startup", ["sockets"]), ("shutdown", ["sockets"])])
def test_the_server_has_the_methods_that_ours_extends(name: str, expected: list[str]) -> None:
    method = getattr(uvicorn.Server, name, None)
    assert inspect.iscoroutinefunction(method), f"uvicorn's Server.{name} is no coroutine any more; {WORKER} extends it"
    assert parameters(method) == expected, f"uvicorn's Server.{name} takes other arguments; {WORKER} extends it"


def test_the_server_captures_signals_in_a_context_manager_of_its_own(config: uvicorn.Config) -> None:
    manager = getattr(uvicorn.Server(config), "capture_signals", lambda: None)()
    assert isinstance(manager, AbstractContextManager), (
        f"uvicorn's Server.capture_signals is no context manager any more; {WORKER} replaces it to keep SIGTERM"
    )


def test_the_server_keeps_what_listens_and_what_is_connected_and_stops_when_asked(config: uvicorn.Config) -> None:
    server = uvicorn.Server(config)
    parts: dict[str, bool] = {}

    async def start_and_stop(listener: socket.socket) -> None:
        config.load()
        parts["config.get_loop_factory"] = callable(config.get_loop_factory)
        server.lifespan = config.lifespan_class(config)
        await server.startup([])
        parts["servers"] = server.servers == []  # so that startup with no socket accepts nothing
        parts["config.http_protocol_class"] = callable(config.http_protocol_class)
        parts["lifespan.state"] = server.lifespan.state == {}
        parts["server_state.connections"] = len(server.server_state.connections) == 0
        parts["should_exit"] = server.should_exit is False
        await server.shutdown([listener])  # ours has closed the same before

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(start_and_stop(listener))
    changed = [name for name, is_there in parts.items() if not is_there]
    assert not changed, f"uvicorn's Server has no {' and no '.join(changed)} any more; {WORKER} drains by it"
