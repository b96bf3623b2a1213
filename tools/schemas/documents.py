"""The messages of `worldline.v1` as JSON Schema and as AsyncAPI 3.

Both describe the map that MessagePack carries; a field of bytes is `format: binary` there.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec

from tools.schemas.typescript import described, members
from worldline.core.live import SUBPROTOCOL, VERSION, ClientMessage, ServerMessage

Json = dict[str, Any]
ROUTE: Final = "/v1/worlds/live"
CONTENT_TYPE: Final = "application/x-msgpack"
LICENCE: Final = {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
SUMMARY: Final = (
    "One binary WebSocket message is one MessagePack map with a `type`. Unknown fields are ignored,"
    " unknown types are refused with `error`. Life-cycle and close codes: docs/protocol.md."
)


def components(template: str) -> Json:
    """The schema of every struct by its name; `template` is how one refers to another."""
    structs = [*members(ClientMessage), *members(ServerMessage)]
    _, found = msgspec.json.schema_components(structs, ref_template=template)
    return {name: plain(schema) for name, schema in found.items()}


def plain(node: Any) -> Any:
    """Docstrings without their indentation, bytes as bytes."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("contentEncoding") == "base64":
        length = {"maxLength": node["maxLength"] * 3 // 4} if "maxLength" in node else {}
        return {"type": "string", "format": "binary", **length}
    out = {key: plain(value) for key, value in node.items()}
    if isinstance(out.get("description"), str):
        out["description"] = inspect.cleandoc(out["description"])
    return out


def either(union: object, template: str) -> Json:
    """Any message of one direction."""
    return {"oneOf": [{"$ref": template.format(name=s.__name__)} for s in members(union)]}


def json_schema() -> Json:
    """JSON Schema 2020-12: a document is a message of either direction."""
    template = "#/$defs/{name}"
    directions = {
        "ClientMessage": either(ClientMessage, template),
        "ServerMessage": either(ServerMessage, template),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "description": SUMMARY,
        "anyOf": [{"$ref": template.format(name=name)} for name in directions],
        "$defs": {**directions, **components(template)},
    }


def asyncapi() -> Json:
    """AsyncAPI 3, from the server's side: it receives client messages and sends its own."""
    sent, received = members(ServerMessage), members(ClientMessage)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": SUBPROTOCOL,
            "version": f"{VERSION}.0.0",
            "description": SUMMARY,
            "license": LICENCE,
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"local": {"host": "127.0.0.1:30000", "protocol": "ws"}},
        "channels": {"live": channel([*received, *sent])},
        "operations": {
            "receiveFromClient": operation("receive", received),
            "sendToClient": operation("send", sent),
        },
        "components": {
            "messages": {tag_of(struct): message(struct) for struct in (*received, *sent)},
            "schemas": components("#/components/schemas/{name}"),
        },
    }


def channel(structs: list[type[msgspec.Struct]]) -> Json:
    """The one socket."""
    return {
        "address": ROUTE,
        "description": f"WebSocket with the sub-protocol `{SUBPROTOCOL}`.",
        "messages": {tag_of(s): {"$ref": f"#/components/messages/{tag_of(s)}"} for s in structs},
    }


def operation(action: str, structs: tuple[type[msgspec.Struct], ...]) -> Json:
    """One direction."""
    return {
        "action": action,
        "channel": {"$ref": "#/channels/live"},
        "messages": [{"$ref": f"#/channels/live/messages/{tag_of(s)}"} for s in structs],
    }


def message(struct: type[msgspec.Struct]) -> Json:
    """One message, described by the first line of its docstring."""
    return {
        "name": tag_of(struct),
        "title": struct.__name__,
        "summary": inspect.cleandoc(struct.__doc__ or "").splitlines()[0],
        "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
    }


def tag_of(struct: type[msgspec.Struct]) -> str:
    """The `type` on the wire."""
    return str(described(struct).tag)
