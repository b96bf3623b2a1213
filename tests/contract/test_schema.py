"""The published schemas and the page's types are what the structs of the wire give."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tests.contract import tree
from tools import schema
from worldline.core.live import ClientMessage, ServerMessage

STRUCTS: tuple[type[msgspec.Struct], ...] = (*get_args(ClientMessage), *get_args(ServerMessage))
TAGS = [str(struct.__struct_config__.tag) for struct in STRUCTS]
SCHEMAS = ("docs/schema/asyncapi.json", "docs/schema/worldline.v1.schema.json")


def test_the_committed_files_are_what_the_structs_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main(["--check"]) == 0, capsys.readouterr().err


def test_a_change_by_hand_is_noticed(tmp_path: Path) -> None:
    schema.write(tmp_path)
    assert schema.different(tmp_path) == []
    changed = tmp_path / "web/client/src/protocol/client.ts"
    changed.write_text(changed.read_text().replace("yaw?: number", "yaw?: string", 1))
    (tmp_path / SCHEMAS[0]).unlink()
    assert sorted(schema.different(tmp_path)) == [SCHEMAS[0], "web/client/src/protocol/client.ts"]


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
