"""Literals in Python syntax, which are read without running them."""

import ast
import math
from typing import Any

FLOATS = {'inf': math.inf, 'nan': math.nan}
LONGEST = 60
"""Characters of a value in a message."""


def assigned_literals(text: str) -> dict[str, Any]:
    """Returns the values of a text of assignments of literals and `dict(...)`.

    Raises:
        NotLiteralError: the text is something else.
    """
    try:
        return {name: value for line in ast.parse(text).body for name, value in [_assignment(line)]}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise NotLiteralError(str(error)) from None


class NotLiteralError(Exception):
    """Error raised if the text contains code where a literal is expected."""


def _assignment(line: ast.stmt) -> tuple[str, Any]:
    if not isinstance(line, ast.Assign) or len(line.targets) != 1 or not isinstance(line.targets[0], ast.Name):
        raise NotLiteralError(f'{_clipped(ast.unparse(line))!r} is not an assignment of a literal')
    name = line.targets[0].id
    if name == '_base_':
        raise NotLiteralError('it has a _base_, but the text in a checkpoint must be complete')
    return name, _literal(line.value, name)


def _literal(node: ast.expr, path: str) -> Any:
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str()):
            return node.value
        case ast.Name(id='inf' | 'nan'):
            return FLOATS[node.id]
        case ast.UnaryOp(op=ast.USub()):
            value = _literal(node.operand, path)
            if isinstance(value, int | float):
                return -value
        case ast.List() | ast.Tuple() | ast.Set():
            kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
            return kind(_literal(item, f'{path}[{index}]') for index, item in enumerate(node.elts))
        case ast.Dict() if None not in node.keys:
            keys = [_literal(key, path) for key in node.keys]
            return {key: _literal(value, f'{path}.{key}') for key, value in zip(keys, node.values, strict=True)}
        case ast.Call(func=ast.Name(id='dict'), args=[] | [ast.Dict()]) if all(item.arg for item in node.keywords):
            given = _literal(node.args[0], path) if node.args else {}  # dict({...}): a key is not an identifier
            return given | {item.arg: _literal(item.value, f'{path}.{item.arg}') for item in node.keywords}
    raise NotLiteralError(f'{path}={_clipped(ast.unparse(node))} is not a literal')


def _clipped(text: str) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'
