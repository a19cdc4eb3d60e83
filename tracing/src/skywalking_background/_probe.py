"""What answers at an address: the questions that `doctor` asks, one after the other, until one is answered badly.

Each function returns what is wrong and what to do about it, in one sentence, or `""` when all is well.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import socket
import ssl
import time
import urllib.request
from typing import Any, Final

import grpc

CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0  # an OAP that collects its heap may be silent for a while
ADDRESS_VARIABLE: Final = "SW_AGENT_COLLECTOR_BACKEND_SERVICES"
_COLLECT: Final = "/skywalking.v3.TraceSegmentReportService/collectInSync"
# HTTP/2's preface and an empty frame of settings: what every gRPC server answers with settings of its own.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS: Final = 4  # the type of such a frame, its fourth byte
_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")  # in the order in which gRPC looks at them
_QUERY: Final = "query($id: ID!) { trace: queryTrace(traceId: $id) { spans { endpointName } } }"


def split(address: str) -> tuple[str, int] | str:
    """Take `host:port` apart; what is wrong with it where it is none."""
    host, _, port = address.rpartition(":")
    if address == "oap_host:oap_port" or not address:
        return f"no OAP is named: set {ADDRESS_VARIABLE} to its gRPC address, as in 127.0.0.1:11800"
    if "/" in address or not host or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004  # ports end there
        return f"{address!r} is no address: write {ADDRESS_VARIABLE}=host:port, without a scheme or a path"
    return host.strip("[]"), int(port)


def connect(host: str, port: int) -> str:
    """Resolve the name and open a connection."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"the name {host!r} can't be resolved here: correct {ADDRESS_VARIABLE}, or this machine's DNS"
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return f"nobody listens at {host}:{port}: start OAP, or correct {ADDRESS_VARIABLE} (its gRPC port is 11800)"
    except OSError as error:
        return f"no connection to {host}:{port} ({error}): let a firewall pass it, or correct {ADDRESS_VARIABLE}"
    return ""


def speaks(host: str, port: int, *, tls: bool) -> str:
    """Look whether the port speaks HTTP/2, with TLS or without as the agent is told to."""
    if tls:
        return _handshake(host, port)
    silent = False
    answer = b""
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
            connection.sendall(_PREFACE)
            answer = _read(connection)
    except OSError as error:
        silent = isinstance(error, TimeoutError)
    if len(answer) > 3 and answer[3] == _SETTINGS:  # noqa: PLR2004  # three bytes of length come before the type
        return ""
    if answer.startswith(b"HTTP/"):
        return f"{host}:{port} speaks HTTP/1, not gRPC: name OAP's gRPC port (11800, not 12800) in {ADDRESS_VARIABLE}"
    if not _handshake(host, port, verify=False):
        return f"{host}:{port} speaks TLS only: set SW_AGENT_FORCE_TLS=true"
    if silent:
        return _silence(host, port)
    return f"{host}:{port} does not speak gRPC: name OAP's gRPC port (11800) in {ADDRESS_VARIABLE}"


def _read(connection: socket.socket) -> bytes:
    """Read the head of the first frame, or what there is of another protocol; `OSError` where there is nothing."""
    answer = b""
    try:
        while len(answer) < len(b"HTTP/1.1 ") and (more := connection.recv(64)):
            answer += more
    except OSError:
        if not answer:
            raise
    return answer


def _silence(host: str, port: int) -> str:
    """Say that a server takes connections and no more; a gRPC server speaks first."""
    return (
        f"{host}:{port} accepts connections, but has said nothing for {ANSWER_SECONDS:.0f} s: OAP may be overloaded "
        f"(look at its log), or {ADDRESS_VARIABLE} does not name its gRPC port (11800)"
    )


def _handshake(host: str, port: int, *, verify: bool = True) -> str:
    context = ssl.create_default_context(cafile=os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH") or None)
    context.set_alpn_protocols(["h2"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), ANSWER_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of {host}:{port} is not trusted ({error.verify_message}): "
            "name its authority's file in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
        )
    except TimeoutError:
        return _silence(host, port)
    except OSError:
        return f"{host}:{port} does not speak TLS: unset SW_AGENT_FORCE_TLS"


def proxy(host: str) -> str:
    """Return the variable with the proxy that gRPC would take to this host, `""` for none."""
    if host.lower() == "localhost":
        return ""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return ""
    excepted = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy", "")  # noqa: SIM112  # gRPC knows only these
    if urllib.request.proxy_bypass(host, {"no": excepted}):
        return ""
    return next((name for name in _PROXY_VARIABLES if os.environ.get(name)), "")


def collects(address: str, *, tls: bool, authentication: str, through_proxy: bool) -> str:
    """Send an empty batch of segments, as the library sends full ones; OAP must take it."""
    options = [("grpc.enable_http_proxy", int(through_proxy))]
    if tls:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
    else:
        channel = grpc.insecure_channel(address, options)
    metadata = (("authentication", authentication),) if authentication else None
    collect: Any = channel.unary_unary(_COLLECT)
    with channel:
        try:
            collect(b"", timeout=ANSWER_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return _explain(address, error)
    return ""


def _explain(address: str, error: Any) -> str:  # noqa: ANN401  # gRPC's error is a call too, which no type says
    code: grpc.StatusCode = error.code()
    if code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
        return f"OAP at {address} wants another token: set SW_AGENT_AUTHENTICATION to the one it is set up with"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{address} takes no segments: name OAP's gRPC port (11800, not 12800) in {ADDRESS_VARIABLE}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return (
            f"{address} has not answered for {ANSWER_SECONDS:.0f} s ({error.details()}): OAP may be overloaded "
            f"(look at its log), something is between, or {ADDRESS_VARIABLE} names another server"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"gRPC does not reach {address} ({error.details()}): correct {ADDRESS_VARIABLE}, or what is between"
    return f"OAP at {address} refused an empty batch ({code.name}: {error.details()}): look into OAP's own log"


def stored(query: str, trace_id: str, seconds: float) -> str:
    """Ask OAP's query address for a trace until it has it."""
    url = query.rstrip("/").removesuffix("/graphql") + "/graphql"
    body = json.dumps({"query": _QUERY, "variables": {"id": trace_id}}).encode()
    # A proxy is for the world outside; OAP is not there.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while True:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  # the user's own
            with opener.open(request, timeout=ANSWER_SECONDS) as answer:
                spans = json.load(answer)["data"]["trace"]["spans"]
        except TimeoutError:
            return (
                f"{query} has not answered for {ANSWER_SECONDS:.0f} s: OAP may be overloaded (look at its log), or "
                "--query does not name its HTTP address, as in http://127.0.0.1:12800"
            )
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
            cause = f"{type(error).__name__}: {error}"
            return (
                f"{query} answers no queries ({cause}): name OAP's HTTP address, as in --query http://127.0.0.1:12800"
            )
        if spans:
            return ""
        if time.monotonic() > deadline:
            return (
                f"OAP took the test segment but does not show its trace {trace_id} after {seconds:.0f} s: "
                "look into OAP's own log, and whether --query names the same OAP"
            )
        time.sleep(0.5)
