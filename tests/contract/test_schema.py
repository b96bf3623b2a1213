"""The published schemas and the page's types are what the structs of the wire give."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tests.contract import tree
from tools import schema
from worldline.core.live import ClientMessage, ServerMessage
from worldline.core.live.codes import ByeCode, Close, NoticeCode

STRUCTS: tuple[type[msgspec.Struct], ...] = (*get_args(ClientMessage), *get_args(ServerMessage))
TAGS = [str(struct.__struct_config__.tag) for struct in STRUCTS]
SCHEMAS = ("docs/schema/asyncapi.json", "docs/schema/worldline.v1.schema.json")


def test_the_committed_files_are_what_the_structs_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main(["--check"]) == 0, capsys.readouterr().err


def test_a_change_by_hand_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(tree.ROOT / "docs/protocol.md", tmp_path / "docs")
    schema.write(tmp_path)
    assert schema.different(tmp_path) == []
    changed = tmp_path / "web/client/src/protocol/inputs.ts"
    changed.write_text(changed.read_text().replace("yaw?: number", "yaw?: string", 1))
    (tmp_path / SCHEMAS[0]).unlink()
    assert sorted(schema.different(tmp_path)) == [SCHEMAS[0], "web/client/src/protocol/inputs.ts"]


def test_a_type_is_said_once() -> None:
    assert len(set(TAGS)) == len(TAGS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_reference_leads_somewhere(name: str) -> None:
    document = json.loads((tree.ROOT / name).read_text(encoding="utf-8"))
    found = references(document)
    assert found
    for reference in found:
        node: Any = document
        for key in reference.removeprefix("#/").split("/"):
            assert key in node, reference
            node = node[key]


def references(node: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(node, list):
        return set().union(*(references(item) for item in node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*(references(value) for value in node.values()))


def test_the_asyncapi_document_names_every_message_in_its_direction() -> None:
    document = json.loads((tree.ROOT / SCHEMAS[0]).read_text(encoding="utf-8"))
    for operation, union in (("receiveFromClient", ClientMessage), ("sendToClient", ServerMessage)):
        named = [m["$ref"].rsplit("/", 1)[1] for m in document["operations"][operation]["messages"]]
        assert named == [struct.__struct_config__.tag for struct in get_args(union)]
    assert set(document["components"]["messages"]) == set(TAGS)


def test_the_types_of_the_page_have_every_message_and_field() -> None:
    folder = tree.ROOT / "web/client/src/protocol"
    source = "".join(p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.ts")))
    for struct, tag in zip(STRUCTS, TAGS, strict=True):
        body = re.search(rf"export interface {struct.__name__} {{\n(.*?)\n}}", source, re.DOTALL)
        assert body is not None, struct.__name__
        named = re.findall(r"readonly (\w+)\??:", body[1])
        assert named == ["type", *struct.__struct_encode_fields__]
        assert f'readonly type: "{tag}";' in body[1]


def test_the_document_names_every_message_and_every_ending() -> None:
    text = (tree.ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    part = text.split("## worldline.v1\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z_0-9]+)`", part))
    endings = {*get_args(NoticeCode), *get_args(ByeCode), *(str(int(code)) for code in Close)}
    assert set(TAGS) | endings <= named


def examples() -> list[dict[str, Any]]:
    """The messages in the JSON blocks of the document's part on worldline.v1, one a line."""
    text = (tree.ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("message", examples(), ids=lambda message: message["type"])
def test_the_examples_are_messages(message: dict[str, Any]) -> None:
    for name in ("image", "payload"):
        if name in message:
            message[name] = message[name].encode()
    read = msgspec.convert(message, ClientMessage | ServerMessage)
    for name in message.keys() - {"type"}:
        told = getattr(read, name)
        assert (list(told) if isinstance(told, tuple) else told) == message[name]
