"""Checks between settings: names that must exist, rules that can never match, bounds that collide."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from gateway.errors import ConfigurationError
from gateway.routing import ConditionError, parse_condition
from gateway.settings.document import Document
from gateway.settings.model import RouteSettings, Settings
from gateway.settings.problems import Location, did_you_mean
from gateway.uids import is_uid

_LEAST_WORKER_MEMORY = 2**30  # with less the worker cannot load its libraries and models

Check = Callable[[Settings, Document], None]


def is_broken(document: Document, section: str) -> bool:
    """True if a section has problems of its own, so that names missing in it prove nothing."""
    return any(location[:1] == (section,) for location in document.broken)


def check_routes(settings: Settings, document: Document) -> None:
    """Names are unique, conditions can be understood, and every route can be reached."""
    seen: dict[str, int] = {}
    catch_all: str | None = None
    for index, route in enumerate(settings.routes):
        here = ("routes", index)
        if route.name in seen:
            line = document.mark(("routes", seen[route.name], "name"))[0]
            document.add((*here, "name"), f'another route is named "{route.name}" (line {line})')
        seen.setdefault(route.name, index)
        if catch_all is not None:
            line = document.mark(("routes", seen[catch_all]))[0]
            message = f'can never match: route "{catch_all}" (line {line}) comes first and takes every series'
            document.add((*here, "name"), message)
        elif not route.when and (*here, "when") not in document.broken:
            catch_all = route.name
        for name, value in route.when.items():
            if (*here, "when", name) in document.broken:
                continue
            try:
                parse_condition(name, value)
            except ConditionError as error:
                document.add((*here, "when", *error.at), error.message)


def check_actions(settings: Settings, document: Document) -> None:
    """A processing route names a model and destinations that exist; an ignoring one names neither."""
    for index, route in enumerate(settings.routes):
        here = ("routes", index)
        if route.action == "ignore":
            for setting in ("model", "send"):
                if getattr(route, setting):
                    document.add((*here, setting), "a route with action: ignore runs nothing; remove this")
            continue
        if route.model is None and (*here, "model") not in document.broken:
            document.add(here, f'route "{route.name}" needs a model, or action: ignore')
        elif route.model and route.model not in settings.models and not is_broken(document, "models"):
            hint = did_you_mean(route.model, settings.models)
            document.add((*here, "model"), f'unknown model "{route.model}"{hint}')
        _check_destinations(settings, document, index, route)


def _check_destinations(settings: Settings, document: Document, index: int, route: RouteSettings) -> None:
    if is_broken(document, "peers"):
        return
    for position, name in enumerate(route.send):
        here = ("routes", index, "send", position)
        peer = settings.peers.get(name)
        if peer is None:
            document.add(here, f'unknown peer "{name}"{did_you_mean(name, settings.peers)}')
        elif "destination" not in peer.roles:
            line = document.mark(("peers", name))[0]
            document.add(here, f'peer "{name}" (line {line}) does not have the role destination')
        if name in route.send[:position]:
            document.add(here, f'peer "{name}" is named twice')


def check_peers(settings: Settings, document: Document) -> None:
    """A peer that we call needs a port."""
    for name, peer in settings.peers.items():
        here = ("peers", name)
        called = [role for role in peer.roles if role != "source"]
        if called and peer.port is None and (*here, "port") not in document.broken:
            document.add(here, f"a {called[0]} needs ae_title, host and port; port is missing")


def check_profiles(settings: Settings, document: Document) -> None:
    """How results are written: of destinations only, and nothing that cannot be done."""
    for name, peer in settings.peers.items():
        here, results = ("peers", name, "results"), peer.results
        if here in document.marks and "destination" not in peer.roles:
            document.add(here, f'peer "{name}" does not have the role destination, so it gets no results')
            continue
        if (*here, "segmentation") in document.broken:
            continue
        becomes_label_map = results.when_over == "label_map" and (results.max_frames or results.max_segments)
        if results.segmentation == "binary" and results.compression != "none" and not becomes_label_map:
            message = (
                f"{results.compression} cannot compress binary segmentations, whose bits no transfer syntax "
                "compresses; write segmentation: label_map or fractional, or compression: none"
            )
            document.add((*here, "compression"), message)


def check_bounds(settings: Settings, document: Document) -> None:
    """Settings that only make sense together."""
    completion, workers, delivery = settings.completion, settings.workers, settings.delivery
    if completion.quiet_for > completion.at_most and not is_broken(document, "completion"):
        document.add(("completion", "quiet_for"), f"is longer than at_most ({completion.at_most:g} s)")
    if workers.heartbeat * 2 > workers.lease and not is_broken(document, "workers"):
        document.add(("workers", "heartbeat"), f"must fit twice into lease ({workers.lease:g} s)")
    if 0 < workers.memory_limit < _LEAST_WORKER_MEMORY and not is_broken(document, "workers"):
        document.add(("workers", "memory_limit"), "the worker needs at least 1GiB; 0 is no limit")
    if len(set(workers.device)) < len(workers.device) and not is_broken(document, "workers"):
        document.add(("workers", "device"), "names a device twice; each has one worker")
    if "auto" in workers.device and len(workers.device) > 1 and not is_broken(document, "workers"):
        document.add(("workers", "device"), "auto is every GPU already; name it alone")
    if delivery.first_retry > delivery.longest_wait and not is_broken(document, "delivery"):
        message = f"is longer than longest_wait ({delivery.longest_wait:g} s)"
        document.add(("delivery", "first_retry"), message)
    waits = settings.commitment
    in_order = waits.first_retry <= waits.longest_wait <= waits.give_up_after
    if not in_order and not is_broken(document, "commitment"):
        message = "first_retry, longest_wait and give_up_after: none may be shorter than the one before"
        document.add(("commitment",), message)


def check_listeners(settings: Settings, document: Document) -> None:
    """Each port has one listener."""
    if is_broken(document, "dicom") or is_broken(document, "web"):
        return
    tls = settings.dicom.tls
    listeners = [
        (("dicom", "listen"), settings.dicom.listen),
        *([(("dicom", "tls", "listen"), tls.listen)] if tls else []),
        (("web", "listen"), settings.web.listen),
    ]
    for index, (location, listen) in enumerate(listeners):
        for other, taken in listeners[:index]:
            if listen.port == taken.port != 0:
                message = f"port {listen.port} is already taken by {'.'.join(other)}"
                document.add((*location, "port"), message)


def check_storage_classes(settings: Settings, document: Document) -> None:
    """Storage classes are UIDs or keywords, and what a peer may store is taken at all."""
    ours: Location = ("dicom", "storage_classes")
    further = _class_uids(document, ours, settings.dicom.storage_classes)
    for name, peer in settings.peers.items():
        here: Location = ("peers", name, "storage_classes")
        wanted = _class_uids(document, here, peer.storage_classes)
        if not wanted or is_broken(document, "dicom"):
            continue
        from gateway.receive.contexts import storage_class_uids  # slow to import, seldom needed

        taken = {*storage_class_uids(), *further.values()}
        for index, uid in wanted.items():
            if uid not in taken:
                text = peer.storage_classes[index]
                message = f'"{text}" is no class of the standard: it must stand in dicom.storage_classes too'
                document.add((*here, index), message)


def _class_uids(document: Document, location: Location, texts: Sequence[str]) -> dict[int, str]:
    """Position to UID; those that are neither UID nor keyword are noted and left out."""
    found = {}
    for index, text in enumerate(texts):
        if is_uid(text):
            found[index] = text
            continue
        from gateway.receive.contexts import storage_class_uids  # slow to import, seldom needed

        try:
            (found[index],) = storage_class_uids(only=(text,))
        except ConfigurationError:
            message = f'"{text}" is neither a UID nor the keyword of a storage SOP class'
            document.add((*location, index), message)
    return found


def check_folders(settings: Settings, document: Document) -> None:
    """Folders with model cards should be there."""
    for index, folder in enumerate(settings.model_dirs):
        if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder above is closed
            document.warn(("model_dirs", index), f"{folder} is no folder that can be read")


CHECKS: tuple[Check, ...] = (
    check_routes,
    check_actions,
    check_peers,
    check_profiles,
    check_bounds,
    check_listeners,
    check_storage_classes,
    check_folders,
)
