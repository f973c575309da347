"""Reading the configuration: the YAML file, the environment over it, and faults told so that they can be mended."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from daemon.config.endpoint import EndpointSection
from daemon.config.root import ENVIRONMENT_PREFIX, Config
from daemon.config.types import redact_url
from daemon.errors import ConfigurationError

_YAML_HINT = "mend that line; look for dates that do not exist, values marked with !!, and quotes or brackets that are left open"


def load(path: Path, *, read_secrets: bool = True) -> Config:
    """Read and check the file at `path`, with the environment over it.

    Raises `ConfigurationError` that lists every fault with its key, its line and a remedy. The files that it names, for secrets
    and certificates, are tried as well; without `read_secrets` they need not be there, as systemd's credentials are not while the
    service is stopped.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read the configuration {path}: {error}",
            hint="name the file with -c; `livechat-relay config example` prints one to start from",
        ) from error
    try:
        data = YAML(typ="rt").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {_yaml_fault(error)}", hint=_YAML_HINT) from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} must hold keys and values", hint="see `livechat-relay config example`")
    odd = [key for key in data if not isinstance(key, str) or key.startswith("_")]
    if odd:
        raise ConfigurationError(_list(path, [f"{key}: unknown key" for key in odd]), hint="mend these and start again")
    try:
        config = Config(**data)
    except ValidationError as error:
        # A value that fits no branch of a union is told once.
        faults = list({text.partition(":")[0]: text for text in reversed(_texts(error, data))}.values())[::-1]
        raise ConfigurationError(_list(path, faults), hint="mend these and start again") from error
    except SettingsError as error:
        raise ConfigurationError(f"an environment variable cannot be read: {error}", hint="lists are written as JSON") from error
    faults = list(_unreadable(config)) if read_secrets else []
    if faults:
        raise ConfigurationError(_list(path, faults), hint="mend these and start again")
    return config


def _texts(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    return [_describe(fault, data) for fault in error.errors(include_url=False)]


def _yaml_fault(error: Exception) -> str:
    """What is wrong and where, without the text of the line: it may be a secret."""
    if not isinstance(error, MarkedYAMLError):
        return "a value is not of the type that it is marked as, or brackets are nested too deep"
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return where + (error.problem or error.context or "not understood").partition(" with value")[0]


def _unreadable(config: Config) -> Iterable[str]:
    readers: list[Callable[[], object]] = [config.mongodb.connection_string, config.intake.token, config.serve.token]
    for name, endpoint in config.endpoints.items():
        readers += endpoint.file_readers(name)
    for read in readers:
        try:
            read()
        except ConfigurationError as error:
            yield f"{error}: {error.hint}"


def _list(path: Path, faults: list[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return "\n".join([f"{path}: {count}", *(f"  {fault}" for fault in faults)])


def _describe(fault: ErrorDetails, data: Mapping[str, Any]) -> str:
    # Beside keys pydantic lists the branches of a union that it tried.
    branches = ("function-", "literal[", "datetime", "tuple[")
    location = [part for index, part in enumerate(fault["loc"]) if not (index and str(part).startswith(branches))]
    key = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        text = f"unknown key; did you mean `{near[0]}`?" if near else f"unknown key; known here: {', '.join(known)}"
    elif fault["type"] == "missing":
        text = "is missing; add it"
    elif fault["type"] == "too_short":
        text = "must hold at least one; `livechat-relay config example` shows how it is written"
    elif fault["type"] in {"model_type", "dict_type", "model_attributes_type"}:
        text = "must hold keys and values; leave it out to have the defaults"
    else:
        text = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in {"url_parsing", "url_scheme"}:
            text += f" (now: {redact_url(str(fault['input']))})"
        elif fault["type"] in {"int_parsing", "enum", "literal_error"}:
            text += f" (now: {fault['input']})"
    return f"{key or 'configuration'}{_where(location, data)}: {text}"


def _where(location: list[int | str], data: Mapping[str, Any]) -> str:
    """The environment goes before the file, so a fault is there when the key is."""
    variable = ENVIRONMENT_PREFIX + "__".join(str(part) for part in location).upper()
    for name in os.environ:
        if name.upper() == variable or variable.startswith(f"{name.upper()}__"):
            return f" (environment variable {name})"
    line = _line(location, data)
    return f" (line {line})" if line else ""


def _known_keys(location: list[int | str]) -> list[str]:
    model: Any = Config
    for part in location:
        if model is Config and part == "endpoints":
            model = dict[str, EndpointSection]
        elif _is_section(model):
            model = model.model_fields[str(part)].annotation
            model = next((kind for kind in get_args(model) if _is_section(kind)), model)  # of a section that may be left out
        else:
            model = get_args(model)[-1]
    return sorted(model.model_fields) if _is_section(model) else []


def _is_section(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel)


def _line(location: list[int | str], data: Any) -> int | None:
    """The line of the deepest part of `location` that is in the file; the environment has none."""
    line: int | None = None
    for part in location:
        marks = getattr(data, "lc", None)
        if marks is None or not isinstance(data, dict | list):
            break
        try:
            line = (marks.key(part) if isinstance(data, dict) else marks.item(part))[0] + 1
            data = data[part] if isinstance(data, dict) else data[int(part)]
        except (KeyError, IndexError, TypeError):
            break
    return line
