"""Look through a ``.pt2`` before torch opens it: nothing in it may name code.

``torch.export.load`` unpickles what is not plain tensors, imports what a tree of arguments names, looks
operators up by their dotted name from ``torch`` down, and evaluates expressions of sizes as Python. Each of
these is held here against a short list of what exported networks need.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from ai.errors import ModelError
from ai.loaders.weights import reads_safely, refuse_bomb

_PLAIN = re.compile(
    r"[^/]+/(models/[\w.-]+\.json|data/(weights|constants)/\w+\.json|data/weights/weight_\d+"
    r"|data/constants/tensor_\w+|data/sample_inputs/[\w.-]+\.pt|extra/.*|archive_format|archive_version"
    r"|byteorder|\.data/(version|serialization_id)|\.format_version|\.storage_alignment)"
)
_COMPILED = re.compile(r"aotinductor|\.(so|cubin|ptx|hsaco|o|dll)$")
_PICKLED = re.compile(r"/data/(sample_inputs/|weights/weight_|constants/tensor_)")
_PYTORCH = (b"PK\x03\x04", b"\x80")
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|torch\.sym_\w+|torch\._sym_\w+|math\.\w+"
)
_NAME = re.compile(r"[A-Za-z_]\w*|")
_EXPRESSION_NAMES = re.compile(
    r"[a-z]+\d+|Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Max|Min|Abs"
    r"|CeilToInt|FloorToInt|TruncToInt|RoundToInt|IntTrueDiv|FloatTrueDiv|ToFloat|Where|Eq|Ne|Ge|Gt|Le|Lt"
    r"|Equality|Unequality|GreaterThan|StrictGreaterThan|LessThan|StrictLessThan"
    r"|And|Or|Not|Piecewise|ModularIndexing|Identity|OpaqueUnaryFn_\w+|true|false|True|False|oo|int_oo"
)
_EXPRESSION_NODES = (
    ast.Expression,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.keyword,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
)
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


def vet(content: bytes, name: str) -> None:
    """Refuse a ``.pt2`` that could run code when it is opened.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNSAFE`` with what it names; ``MODEL_FILE_UNREADABLE`` when it is no such archive.
    """
    refuse_bomb(content, name)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if not any("/models/" in each for each in names):
                raise ModelError("MODEL_FILE_UNREADABLE", f"{name} holds no program of torch.export.")
            if len(set(names)) != len(names):
                raise _unsafe(name, "two of its members have one name")
            for member in members:
                _vet_member(member.filename, archive.read(member), name)
    except (zipfile.BadZipFile, ValueError, RecursionError, EOFError, NotImplementedError) as error:
        raise ModelError(
            "MODEL_FILE_UNREADABLE", f"{name} is no archive of torch.export: {error}."
        ) from error


def _vet_member(member: str, content: bytes, name: str) -> None:
    if _COMPILED.search(member):
        raise _unsafe(name, f"it holds compiled code ({member})")
    if not _PLAIN.fullmatch(member):
        raise _unsafe(name, f"it holds {member}, which no exported network needs")
    if _PICKLED.search(member) and content.startswith(_PYTORCH) and not reads_safely(content):
        raise _unsafe(name, f"{member} is a pickle of more than tensors")
    if member.endswith(".json") and "/extra/" not in member:
        _vet_json(json.loads(content), name)


def _vet_json(program: object, name: str) -> None:
    for key, value in _entries(program):
        if value is None:
            continue
        if key == "target" and not _OPERATOR.fullmatch(str(value)):
            raise _unsafe(name, f"it calls {value}, which is no operator of PyTorch")
        if key in ("name", "forward_arg_names") and not all(_NAME.fullmatch(each) for each in _texts(value)):
            raise _unsafe(name, f"{str(value)[:80]!r} is no name")
        if key == "expr_str":
            _vet_expression(str(value), name)
        if key in ("in_spec", "out_spec"):
            _vet_tree(json.loads(str(value)), name)
        if key == "path_name" and not re.fullmatch(r"weight_\d+|tensor_\w+", str(value)):
            raise _unsafe(name, f"it holds the object {value}")


def _entries(value: object) -> Iterator[tuple[str, Any]]:
    """Every key of every mapping in it, with its value; free texts about where a node came from left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "metadata":
                yield key, inner
                yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _vet_expression(text: str, name: str) -> None:
    """An expression of sizes: numbers, symbols and the functions of :mod:`sympy` that torch writes."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise _unsafe(name, f"{text[:80]!r} is no size") from error
    for node in ast.walk(tree):
        plain = isinstance(node, _EXPRESSION_NODES)
        if isinstance(node, ast.Name):
            plain = bool(_EXPRESSION_NAMES.fullmatch(node.id))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            plain = bool(re.fullmatch(r"[a-z]+\d+", node.value))
        if not plain:
            raise _unsafe(name, f"{text[:80]!r} is no size")


def _vet_tree(tree: object, name: str) -> None:
    """How arguments are nested: plain containers, keys that are names."""
    for key, value in _entries(tree):
        if key == "type" and value not in _TREE_TYPES:
            raise _unsafe(name, f"its arguments are of the type {value}")
        if key == "context" and value is not None:
            keys = json.loads(str(value))
            if keys is not None and not all(_NAME.fullmatch(each) for each in _texts(keys)):
                raise _unsafe(name, f"{str(value)[:80]!r} names no arguments")


def _unsafe(name: str, why: str) -> ModelError:
    return ModelError(
        "MODEL_FILE_UNSAFE", f"{name} is not opened, because that would run code: {why}. Export it to ONNX."
    )
