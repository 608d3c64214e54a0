"""Python modules that a bundle brings along, imported from the bytes that the card pins."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

from ai.errors import ModelError
from ai.model import PinnedFiles

_ONE_BUNDLE = threading.RLock()


class Scripts(MetaPathFinder, Loader):
    """The ``.py`` files of one bundle. Two bundles may both have a package ``scripts``: each sees its own."""

    def __init__(self, files: PinnedFiles) -> None:
        self._files = files
        taken = (sys.stdlib_module_names | sys.modules.keys()) - {"scripts"}  # never in place of another
        names = {name: name.split("/")[0].removesuffix(".py") for name in files.names if name.endswith(".py")}
        self._names = frozenset(name for name, top in names.items() if top not in taken)
        self._tops = {names[name] for name in self._names}
        self._modules: dict[str, ModuleType] = {}
        self._failure: Exception | None = None

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Within it the bundle's modules can be imported; afterwards they are gone for all others.

        Raises
        ------
        ModelError
            ``MODEL_CONFIG_INVALID``: a module failed, which MONAI would tell only when it is used; and what
            :meth:`ai.model.PinnedFiles.read` raises.
        """
        if not self._names:
            yield
            return
        with _ONE_BUNDLE:
            hidden = {name: sys.modules.pop(name) for name in tuple(sys.modules) if self._owns(name)}
            sys.modules.update(self._modules)
            sys.meta_path.insert(0, self)
            try:
                yield
            finally:
                sys.meta_path.remove(self)
                for name in [name for name in sys.modules if self._owns(name)]:
                    self._modules[name] = sys.modules.pop(name)
                sys.modules.update(hidden)
        self._raise_failure()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module of the bundle, or a folder of them."""
        if not self._owns(fullname):
            return None
        path = fullname.replace(".", "/")
        is_package = any(name.startswith(f"{path}/") for name in self._names)
        if not is_package and f"{path}.py" not in self._names:
            return None
        return spec_from_loader(fullname, self, origin=f"{path} of the model", is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        """Run the pinned bytes; a folder without ``__init__.py`` is empty."""
        path = module.__name__.replace(".", "/")
        name = f"{path}/__init__.py" if hasattr(module, "__path__") else f"{path}.py"
        if name in self._names:
            try:
                code = compile(self._files.read(name), name, "exec")
                exec(code, module.__dict__)  # noqa: S102  (pinned by the card, in the closed model process)
            except Exception as error:
                self._failure = self._failure or error
                raise

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if isinstance(failure, ModelError):
            raise failure
        if failure is not None:
            reason = f"{type(failure).__name__}: {' '.join(str(failure).split())[:200]}"
            raise ModelError("MODEL_CONFIG_INVALID", f"A script of the bundle fails: {reason}.") from failure

    def _owns(self, module: str) -> bool:
        return module.split(".")[0] in self._tops
