"""Values that are written as Python writes them, where only JSON's kinds of value are taken."""

from __future__ import annotations

import ast
import math
import warnings
from typing import Any

from finetune.converters.reading import ConvertError, decoded

_CONSTANTS = {"true": True, "false": False, "null": None}


def read_value(text: str, path: str, rule: str) -> Any:
    """Return what a text holds that is JSON, or such a value as Python prints it.

    Raises:
        ConvertError: It is neither; `rule` is what it breaks.
    """
    try:
        return decoded(text, path, rule)
    except ConvertError:
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not have
            return literal_of(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        fact = "neither JSON nor a value of Python's"
        raise ConvertError(fact, path=path, rule=rule) from None


def literal_of(node: ast.expr) -> Any:
    """Return the value of a literal; `true`, `false` and `null` are JSON's.

    Raises:
        ValueError: It is no literal, or one that JSON does not have.
        TypeError: A key is no text.
    """
    match node:
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [literal_of(item) for item in items]
        case ast.Dict(keys=keys, values=values) if all(keys):
            return {
                _text(literal_of(key)): literal_of(item)  # type: ignore[arg-type]
                for key, item in zip(keys, values, strict=True)
            }
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Constant(value=None | str() | int() as value):
            return value
        case ast.Constant(value=float() as value) if math.isfinite(value):
            return value
    raise ValueError


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError
    return key
