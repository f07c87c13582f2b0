"""The TypeScript twin of signaling/protocol.py: `python -m signaling.wire > …/signaling.ts`.

Written from the models themselves, in prettier's layout, and the same for the same models: `make
check` compares it with what is committed. Every message is an interface with a literal `type`, so
`switch (message.type)` narrows; what a client may leave out is optional, what the server sends is
always there.
"""

import inspect
import sys
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from signaling import protocol
from signaling.protocol import CloseCode, Message

_WIDTH = 100
_HEADER = """\
// Generated from signaling/protocol.py by `make wire`. Do not edit.
"""
_PLAIN: dict[object, str] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    datetime: "string",  # ISO 8601
    NoneType: "null",
}


def typescript() -> str:
    """The whole file."""
    from_client = _members(protocol.ClientMessage)
    from_server = _members(protocol.ServerMessage)
    names: dict[str, str] = {}
    for model in (*from_client, *from_server):
        _declare(model, names, from_client=model in from_client)
    parts = [
        _HEADER + f"export const PROTOCOL_VERSION = {protocol.PROTOCOL_VERSION};",
        _close_codes(),
        *names.values(),
        _union("ClientMessage", [model.__name__ for model in from_client]),
        _union("ServerMessage", [model.__name__ for model in from_server]),
    ]
    return "\n\n".join(parts) + "\n"


def _members(union: object) -> tuple[type[Message], ...]:
    return get_args(get_args(union)[0])


def _declare(kind: type, names: dict[str, str], *, from_client: bool) -> None:
    """Add the declaration of `kind`, after everything that it mentions."""
    if kind.__name__ in names:
        return
    if issubclass(kind, StrEnum):
        names[kind.__name__] = _union(kind.__name__, [f"'{value.value}'" for value in kind])
        return
    assert issubclass(kind, Message)
    for field in kind.model_fields.values():
        for mentioned in _mentioned(field.annotation):
            _declare(mentioned, names, from_client=from_client)
    lines = [_comment(kind)] if _comment(kind) else []
    lines.append(f"export interface {kind.__name__} {{")
    lines += [
        f"  {name}{'?' if _may_be_left_out(name, field, from_client) else ''}: "
        f"{_type(field.annotation)};"
        for name, field in kind.model_fields.items()
    ]
    names[kind.__name__] = "\n".join([*lines, "}"])


def _may_be_left_out(name: str, field: FieldInfo, from_client: bool) -> bool:
    return from_client and name != "type" and not field.is_required()


def _mentioned(annotation: object) -> Iterator[type]:
    """Our own types inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Message | StrEnum):
        yield annotation
    for inner in get_args(annotation):
        yield from _mentioned(inner)


def _type(annotation: Any) -> str:  # Any: annotations have no common type
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " | ".join(f"'{value}'" for value in inner)
    if origin in (Union, UnionType):
        return " | ".join(_type(each) for each in inner)
    if origin is tuple:
        assert inner[1:] == (Ellipsis,), "fixed tuples have no place in this protocol"
        element = _type(inner[0])
        return f"({element})[]" if " " in element else f"{element}[]"
    if isinstance(annotation, type) and issubclass(annotation, Message | StrEnum):
        return annotation.__name__
    raise TypeError(f"the wire has no word for {annotation!r}")


def _comment(model: type[Message]) -> str:
    """The model's own docstring; what it inherits says nothing about it."""
    words = inspect.cleandoc(model.__dict__.get("__doc__") or "")
    if not words:
        return ""
    if "\n" not in words:
        return f"/** {words} */"
    body = "\n".join(f" * {line}".rstrip() for line in words.splitlines())
    return f"/**\n{body}\n */"


def _union(name: str, members: list[str]) -> str:
    one_line = f"export type {name} = {' | '.join(members)};"
    if len(one_line) <= _WIDTH:
        return one_line
    indented = f"  {' | '.join(members)};"
    if all(member.startswith("'") for member in members) and len(indented) <= _WIDTH:
        return f"export type {name} =\n{indented}"
    return f"export type {name} =\n" + "\n".join(f"  | {member}" for member in members) + ";"


def _close_codes() -> str:
    codes = "\n".join(f"  {code.name}: {code.value}," for code in CloseCode)
    words = inspect.cleandoc(CloseCode.__doc__ or "")
    return f"/** {words} */\nexport const CloseCode = {{\n{codes}\n}} as const;"


if __name__ == "__main__":
    sys.stdout.write(typescript())
