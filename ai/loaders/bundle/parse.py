"""Read the configuration of a MONAI bundle from its pinned files, and build what it defines.

A bundle's ``$…`` strings and its ``scripts`` are code. They run because the card pins their hashes and the
model process is closed off; what they may not do is reach for files that the card does not pin.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import monai.transforms
import torch
from monai.bundle.config_parser import ConfigParser

from ai.errors import ModelError
from ai.loaders.bundle.arguments import NotTranslatable
from ai.loaders.bundle.files import METADATA, read_mapping, short_name, targets
from ai.model import PinnedFiles

FILE_TRANSFORMS = frozenset({"LoadImaged", "LoadImage", "EnsureChannelFirstd", "EnsureChannelFirst"})
FILE_TRANSFORMS |= {"AddChanneld", "AsChannelFirstd", "SaveImaged", "SaveImage"}
"""Transforms between files and arrays: in memory there is nothing for them to do."""
_SECTIONS = ("network_def", "network", "preprocessing", "inferer", "postprocessing", "imports")
_REFERENCE = re.compile(r"@(?:_meta_|[A-Za-z_]\w*)")


@dataclass(frozen=True)
class BundleConfig:
    """The configuration of one bundle.

    Attributes
    ----------
    metadata
        ``configs/metadata.json``; empty where there is none.
    inference
        The configuration without its transforms from and to files.
    load_keys
        Keys of the images in the order in which the bundle loads them; the first one is usually ``image``.
    image_key
        Key of what goes into the network.
    """

    name: str
    metadata: Mapping[str, Any]
    inference: Mapping[str, Any]
    load_keys: tuple[str, ...]
    files: PinnedFiles

    @property
    def image_key(self) -> str:
        """``image`` unless the bundle calls its only image otherwise."""
        return self.load_keys[0] if len(self.load_keys) == 1 else "image"

    def parser(self, device: str) -> ConfigParser:
        """A fresh parser of MONAI, which resolves ``@`` and ``$``, for a device."""
        parser = ConfigParser(dict(self.inference))
        parser["_meta_"] = dict(self.metadata)
        parser["bundle_root"] = str(self.files.folder)
        parser["device"] = torch.device(device)
        return parser


@dataclass(frozen=True)
class Call:
    """One transform or inferer of the configuration: its class and every argument, defaults too."""

    name: str
    arguments: Mapping[str, Any]


def read_bundle(files: PinnedFiles, configuration: str) -> BundleConfig:
    """Read and check the configuration.

    Raises
    ------
    ModelError
        ``MODEL_CONFIG_INVALID``: no JSON or YAML, or a part is missing; ``MODEL_CONFIG_OUTSIDE``: it names
        a file that is not one of the model's pinned files; and what :class:`ai.model.PinnedFiles` raises.
    """
    metadata = read_mapping(files.read(METADATA), METADATA) if METADATA in files.names else {}
    inference = read_mapping(files.read(configuration), configuration)
    if not {"network_def", "network"} & inference.keys():
        raise ModelError(
            "MODEL_CONFIG_INVALID",
            f"{configuration} has neither network_def nor network, so it has no network.",
        )
    load_keys = tuple(_load_keys(inference)) or ("image",)
    stripped = _without_files(inference)
    _refuse_outside(stripped, files, configuration)
    return BundleConfig(configuration, metadata, stripped, load_keys, files)


def content_of(parser: ConfigParser, name: str, what: str) -> Any:
    """An object of the configuration; raises ModelError MODEL_CONFIG_INVALID with MONAI's own words."""
    try:
        return parser.get_parsed_content(name)
    except ModelError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        reason = " ".join(f"{error} {cause if cause is not error else ''}".split())[:300]
        raise ModelError("MODEL_CONFIG_INVALID", f"The bundle's {what} cannot be made: {reason}.") from error


def calls(parser: ConfigParser, section: str) -> tuple[Call, ...]:
    """The transforms of ``preprocessing`` or ``postprocessing``, in order; none where it is missing.

    Raises NotTranslatable where the section is more than a list of MONAI's own transforms.
    """
    raw = parser.get(section)
    if raw is None:
        return ()
    if not isinstance(raw, dict) or short_name(raw) != "Compose":
        raise NotTranslatable(f"{section} is no plain Compose")
    if set(raw) - {"_target_", "transforms", "_desc_"}:
        raise NotTranslatable(f"Compose of {section} has further arguments")
    where, listed = f"{section}::transforms", raw.get("transforms")
    if isinstance(listed, str) and re.fullmatch(r"@[A-Za-z_]\w*", listed):
        where = listed[1:]
        listed = parser.get(where)
    if not isinstance(listed, list):
        raise NotTranslatable(f"the transforms of {section} are no plain list")
    found = (read_call(parser, f"{where}::{index}", monai.transforms) for index in range(len(listed)))
    return tuple(call for call in found if call is not None)


def read_call(parser: ConfigParser, where: str, module: Any) -> Call | None:
    """One ``_target_`` with its arguments; None where it is disabled. Raises NotTranslatable."""
    raw = parser.get(where)
    if not isinstance(raw, dict) or "_target_" not in raw:
        raise NotTranslatable(f"{where} is an expression")
    name, target = short_name(raw), str(raw["_target_"])
    known = getattr(module, name, None)
    if known is None or ("." in target and not target.startswith("monai.")):
        raise NotTranslatable(f"{target} is no class of {module.__name__}")
    disabled = _value(parser, f"{where}::_disabled_", raw.get("_disabled_", False))
    if disabled is True or str(disabled).lower() == "true":
        return None
    if set(raw) & {"_requires_", "_mode_"}:
        raise NotTranslatable(f"{name} has _requires_ or _mode_")
    given = {
        key: _value(parser, f"{where}::{key}", value)
        for key, value in raw.items()
        if not (key.startswith("_") and key.endswith("_"))
    }
    signature = inspect.signature(known)
    try:
        bound = signature.bind(**given)
    except TypeError as error:
        raise NotTranslatable(f"{name}: {error}") from error
    bound.apply_defaults()
    return Call(name, dict(bound.arguments))


def _value(parser: ConfigParser, where: str, raw: Any) -> Any:
    """An argument; references to other transforms stay text, expressions are evaluated."""
    if isinstance(raw, str) and raw in ("@preprocessing", "@preprocessing_transforms"):
        return raw
    if not any(text.startswith(("@", "$", "%")) for text in _strings(raw)):
        return raw
    return content_of(parser, where, where)


def _strings(raw: Any) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Mapping):
        for value in raw.values():
            yield from _strings(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from _strings(value)


def _load_keys(inference: Mapping[str, Any]) -> Iterator[str]:
    """Keys of every LoadImaged, in order."""
    for raw in targets(inference):
        if short_name(raw) == "LoadImaged":
            keys = raw.get("keys", "image")
            yield from (key for key in ([keys] if isinstance(keys, str) else keys) if key[:1] not in "@$%")


def _without_files(raw: Any) -> Any:
    """A copy in which lists hold no transform of FILE_TRANSFORMS."""
    if isinstance(raw, Mapping):
        return {key: _without_files(value) for key, value in raw.items()}
    if isinstance(raw, list):
        kept = (value for value in raw if not _is_of_files(value))
        return [_without_files(value) for value in kept]
    return raw


def _is_of_files(raw: Any) -> bool:
    return isinstance(raw, Mapping) and short_name(raw) in FILE_TRANSFORMS


def _refuse_outside(inference: Mapping[str, Any], files: PinnedFiles, name: str) -> None:
    """Whatever we evaluate may name files of the bundle only, and they must be pinned."""
    for text in _reachable(inference):
        if text.startswith("%") and ConfigParser.split_path_id(text[1:])[0]:
            raise ModelError(
                "MODEL_CONFIG_OUTSIDE",
                f"{name} takes a part of another file ({text[:80]}); write that part into {name} itself.",
            )
        for path in _literals(text):
            pinned = _pinned_name(path, files)
            if pinned is None:
                raise ModelError(
                    "MODEL_CONFIG_OUTSIDE",
                    f"{name} names {path[:80]!r}, which is no pinned file of the model; a bundle may only "
                    "use its own files.",
                )
            if pinned in files.names:
                files.path(pinned)  # its hash is checked before code of the bundle opens it


def _reachable(inference: Mapping[str, Any]) -> Iterator[str]:
    """Every string that building network, transforms and inferer can evaluate."""
    waiting, seen = [key for key in _SECTIONS if key in inference], set()
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        for text in _strings(inference[key]):
            yield text
            waiting += [ref[1:] for ref in _REFERENCE.findall(text) if ref[1:] in inference]


def _literals(text: str) -> Iterator[str]:
    """What looks like a path that leaves the bundle: absolute, or with ``..`` or ``~``."""
    texts = [text]
    if text.startswith("$"):
        try:
            tree = ast.parse(_REFERENCE.sub("reference", text[1:]).strip())
        except SyntaxError:
            return
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        texts = [value for value in constants if isinstance(value, str)]
    for value in texts:
        parts = PurePosixPath(value.replace("\\", "/")).parts
        windows = re.match(r"[A-Za-z]:[\\/]", value)
        if value.startswith(("/", "\\", "~")) or windows or ".." in parts or "://" in value:
            yield value


def _pinned_name(path: str, files: PinnedFiles) -> str | None:
    """The pinned file or folder that an expression such as ``@bundle_root + '/models/x.pt'`` means."""
    name = path.lstrip("/")
    if not path.startswith("/") or ".." in PurePosixPath(name).parts:
        return None
    if not name:
        return name
    known = any(each == name or each.startswith(f"{name.rstrip('/')}/") for each in files.names)
    return name if known else None
