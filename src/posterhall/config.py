"""Settings: flat frozen dataclasses, filled from defaults, a YAML file, the environment and flags.

A settings class is plain Python and needs nothing from here::

    @dataclass(frozen=True)
    class Settings:
        dim: int = 100
        \"\"\"Length of a vector, >= 1.\"\"\"

        def __post_init__(self) -> None:
            if self.dim < 1:
                raise DataError(f"dim is {self.dim}; it must be at least 1")

`resolve` builds it; the docstring below a field is what `describe` and the reference show. Field types
may be int, float, bool, str, Path, Literal[...], tuples of these, and unions of these with None.
Reading settings never imports or runs anything.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import itertools
import json
import math
import operator
import os
import re
import reprlib
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from posterhall.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

ENVIRONMENT_PREFIX = "POSTERHALL_"
LARGEST_FILE = 1 << 20
"""Bytes; a settings file is written by hand, so a larger one is a mistake (a corpus given as -c)."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a settings class, for help texts and reference pages."""

    name: str
    type: str
    """In words: "a whole number", "one of: skipgram, cbow"."""
    default: object
    """The default, or `dataclasses.MISSING` for a setting that must be given."""
    doc: str
    """The docstring below the field; empty where there is none."""


def resolve(
    cls: type[Settings],
    *,
    file: Path | str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Build settings; a later source wins: defaults, file, environment, `--set key=value`, flags.

    Args:
        cls: a frozen dataclass as described above.
        file: YAML with one flat mapping.
        sets: texts of the form ``key=value``.
        flags: values of command-line options by field name; None means not given.
        environ: where to look for ``POSTERHALL_<FIELD>``; None means this process's environment.
            Other variables with that prefix are left alone, an empty one counts as not set.

    Raises:
        DataError: for an unknown setting, a value of the wrong type or outside its range, or a file
            that cannot be read; it names the place the value came from.
    """
    kinds = _kinds(cls)
    values: dict[str, object] = {}
    origins: dict[str, str] = {}

    def take(name: str, value: object, origin: str, *, text: bool) -> None:
        if name not in kinds:
            every = f" Known settings: {', '.join(kinds)}." if kinds else " There are none."
            known = did_you_mean(name, kinds) or every
            raise DataError(f"{origin}: unknown setting '{name}'.{known}")
        try:
            values[name] = _coerce(value, kinds[name], text=text)
        except _Mismatch as mismatch:
            raise DataError(
                f"{origin}: {name} is {_short(value)}; it must be {_words(kinds[name])}.{mismatch}"
            ) from None
        origins[name] = origin

    if file is not None:
        for name, value, origin in _read_yaml(Path(file)):
            take(name, value, origin, text=False)
    environ = os.environ if environ is None else environ
    for name in kinds:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if environ.get(variable):
            take(name, environ[variable], variable, text=True)
    for entry in sets:
        name, equals, value = entry.partition("=")
        if not equals:
            raise DataError(f"--set {entry}: expected key=value, as in --set {next(iter(kinds), 'key')}=...")
        take(name.strip().replace("-", "_"), value.strip(), "--set", text=True)
    for name, flag in (flags or {}).items():
        if flag is not None:
            take(name, flag, "--" + name.replace("_", "-"), text=isinstance(flag, str))

    missing = [f.name for f in _fields(cls) if _is_required(f) and f.name not in values]
    if missing:
        raise DataError(
            f"no value for {', '.join(missing)}: it has no default. Give it in the settings file or with "
            f"--set {missing[0]}=..."
        )
    try:
        return cls(**values)
    except DataError as error:
        # The class checks ranges and cannot know where a value came from; we do.
        named = next((word for word in re.findall(r"\w+", str(error)) if word in origins), None)
        if named is None:
            raise
        raise DataError(f"{origins[named]}: {error}") from error


def to_dict(cfg: DataclassInstance) -> dict[str, Any]:
    """Settings as a dict that YAML can hold: paths become text, tuples become lists."""
    return {f.name: plain(getattr(cfg, f.name)) for f in _fields(type(cfg))}


def dump(cfg: Mapping[str, Any] | DataclassInstance) -> str:
    """Settings as YAML, such that `resolve(type(cfg), file=...)` gives an equal object."""
    import yaml

    def written(*, unicode: bool) -> str:
        return yaml.safe_dump(plain(cfg), sort_keys=False, default_flow_style=False, allow_unicode=unicode)

    text = written(unicode=True)
    # PyYAML leaves these line ends of Unicode as they are, and would read them as spaces.
    return written(unicode=False) if re.search("[\x85\u2028\u2029]", text) else text


def digest(cfg: Mapping[str, Any] | DataclassInstance) -> str:
    """SHA-256 (hex) of the settings as canonical JSON: independent of order and of the machine."""
    return hashlib.sha256(canonical(cfg).encode()).hexdigest()


def canonical(value: object) -> str:
    """Canonical JSON of settings or of one value: sorted keys, no spaces, infinities and NaN as text."""
    return json.dumps(
        finite(plain(value), lambda x: str(float(x))),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def finite(value: Any, instead: Callable[[float], object] = lambda _: None) -> Any:
    """A nest of dicts and lists with every infinity and NaN, which JSON lacks, replaced (by null)."""
    if isinstance(value, dict):
        return {key: finite(each, instead) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each, instead) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return instead(value)
    return value


def plain(value: Any) -> Any:
    """Any nest of settings, paths, tuples and numpy values in the types that YAML and JSON share."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)  # numpy.float64 is a float, but not to YAML
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # numpy, without importing it
        return plain(value.tolist())
    raise TypeError(
        f"settings hold numbers, text, paths and lists, not {type(value).__name__}: {_short(value)}"
    )


def describe(cls: type[DataclassInstance]) -> tuple[Setting, ...]:
    """The settings of a class in their order, with type in words, default and docstring."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        docs.update(_field_docs(base))
    kinds = _kinds(cls)
    return tuple(
        Setting(f.name, _words(kinds[f.name]), _default(f), docs.get(f.name, "")) for f in _fields(cls)
    )


# -- what a settings class declares -----------------------------------------------------------------


def _fields(cls: type[DataclassInstance]) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.init]


def _kinds(cls: type[DataclassInstance]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in _fields(cls)}


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _field_docs(cls: type) -> dict[str, str]:
    """Docstrings below the fields, from the class's source; none where there is no source."""
    try:
        body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]).body
    except (OSError, TypeError, SyntaxError, AttributeError):
        return {}
    docs = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    docs[field.target.id] = inspect.cleandoc(text)
    return docs


# -- values -----------------------------------------------------------------------------------------


class _Mismatch(Exception):
    """A value does not fit; carries a hint (with a leading space) or nothing."""


_TRUE, _FALSE, _NONE = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none", "null")
_IN_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "none",
}


def _words(kind: Any) -> str:
    """A type in words, for messages."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of: " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is tuple:
        if arguments[-1:] == (Ellipsis,):
            return f"a list, each {_words(arguments[0])}"
        return f"a list of {len(arguments)}: {', '.join(map(_words, arguments))}"
    if origin is Mapping:  # in Python alone: files and --set have flat settings
        return "values by name"
    if kind not in _IN_WORDS:
        raise TypeError(f"a setting cannot be of type {kind!r}; see the documentation of posterhall.config")
    return _IN_WORDS[kind]


def _coerce(value: object, kind: Any, *, text: bool) -> object:
    """`value` as `kind`. `text` tells that it was typed (environment, --set), so that '5' may be 5."""
    origin = get_origin(kind)
    if origin is Literal:
        return _choice(value, get_args(kind), text=text)
    if origin in (Union, types.UnionType):
        return _alternative(value, get_args(kind), text=text)
    if origin is tuple:
        return _tuple(value, get_args(kind), text=text)
    if kind is bool:
        return _bool(value, text=text)
    if kind is int:
        return _int(value)
    if kind is float:
        return _float(value)
    if kind is Path and isinstance(value, str | PurePath):
        return Path(value)
    if kind is str and isinstance(value, str):
        return value
    _words(kind)
    raise _Mismatch("" if value is None else " In YAML, put it in quotes.")


def _bool(value: object, *, text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if text and str(value).lower() in _TRUE + _FALSE:
        return str(value).lower() in _TRUE
    raise _Mismatch


def _int(value: object) -> int:
    if isinstance(value, bool):
        raise _Mismatch
    if isinstance(value, str):  # YAML reads 1e6 as text; exact, so by way of Decimal
        try:
            number = Decimal(value.replace("_", ""))
        except InvalidOperation:
            raise _Mismatch from None
        if number.is_finite() and number.adjusted() < 40 and number == number.to_integral_value():
            return int(number)
        raise _Mismatch
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        raise _Mismatch from None


def _float(value: object) -> float:
    if isinstance(value, bool):
        raise _Mismatch
    try:
        return float(cast(Any, value))
    except (TypeError, ValueError, OverflowError):
        raise _Mismatch from None


def _choice(value: object, choices: tuple[object, ...], *, text: bool) -> object:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
        if text and not isinstance(choice, str) and str(choice).lower() == str(value).lower():
            return choice
    if isinstance(value, bool) and any(choice in ("on", "off", "yes", "no") for choice in choices):
        raise _Mismatch(" YAML reads on, off, yes and no as true and false: put it in quotes.")
    raise _Mismatch(did_you_mean(str(value), map(str, choices)))


def _alternative(value: object, kinds: tuple[Any, ...], *, text: bool) -> object:
    if type(None) in kinds and (value is None or (text and str(value).lower() in _NONE)):
        return None
    # The value's own type first, so that 3 stays 3 in `float | int`; typed text is text only at last.
    order = sorted(
        (kind for kind in kinds if kind is not type(None)),
        key=lambda kind: (kind is str) if text else (kind is not type(value)),
    )
    hint = ""
    for kind in order:
        try:
            return _coerce(value, kind, text=text)
        except _Mismatch as mismatch:
            hint = hint or str(mismatch)
    raise _Mismatch(hint)


def _tuple(value: object, kinds: tuple[Any, ...], *, text: bool) -> tuple[object, ...]:
    if text and isinstance(value, str):
        inner = re.sub(r"^[\[(](.*)[\])]$", r"\1", value.strip()).strip()
        value = [part.strip() for part in inner.rstrip(",").split(",")] if inner else []
    if not isinstance(value, list | tuple):
        raise _Mismatch(" In YAML: [a, b].")
    if kinds[-1:] == (Ellipsis,):
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _Mismatch
    return tuple(_coerce(each, kind, text=text) for each, kind in zip(value, kinds, strict=True))


def _short(value: object) -> str:
    text = reprlib.repr(value)
    return {"True": "true", "False": "false", "None": "empty"}.get(text, text)


# -- YAML -------------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> list[tuple[str, object, str]]:
    """(key, value, "file:line") of a flat YAML mapping."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Without aliases: settings need none, and nested ones grow without bound."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                line = self.get_mark().line + 1
                raise DataError(f"{path}:{line}: anchors and aliases (*name) are not supported")
            return super().compose_node(parent, index)

    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path}: over 1 MiB, which is no settings file")
        loader = Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
    except OSError as error:
        raise DataError(f"{path}: cannot read the settings file: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DataError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise DataError(f"{path}:1: settings are lines of the form 'name: value', as 'dim: 100'")

    entries: list[tuple[str, object, str]] = []
    lines: dict[str, int] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        key, origin = str(key_node.value), f"{path}:{line}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise DataError(f"{origin}: a setting's name is a word")
        if key in lines:
            raise DataError(f"{origin}: '{key}' was given already on line {lines[key]}; keep one of the two")
        if isinstance(value_node, yaml.MappingNode):
            raise DataError(f"{origin}: '{key}' holds a group of settings; settings are flat, one a line")
        lines[key] = line
        try:
            entries.append((key, loader.construct_object(value_node, deep=True), origin))
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise DataError(
                f"{origin}: cannot read the value of '{key}': {str(error).splitlines()[0]}"
            ) from None
    return entries
