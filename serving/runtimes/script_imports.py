"""Importing a model's ``code/`` folder without two models seeing each other's modules.

Every model may have its own ``inference.py`` and its own ``utils.py``. While a model is loading, its folder is on the
import path and its modules are in ``sys.modules``; afterwards they are taken out again and kept here. An import that
runs later, inside a function, finds them because the modules of ``code/`` see a different ``__import__``.
"""

from __future__ import annotations

import builtins
import functools
import importlib.machinery
import importlib.util
import itertools
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

#: ``sys.path`` and ``sys.modules`` are the process's: one model at a time changes them.
_CHANGING = threading.RLock()
_SERIAL = itertools.count(1)


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module of ``code/`` with that folder's ``__import__``. Writes no bytecode into the artifact."""

    def __init__(self, imports: ScriptImports, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._imports = imports

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module's code."""
        module.__dict__["__builtins__"] = self._imports.builtins
        super().exec_module(module)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Called to cache bytecode."""


class ScriptImports:
    """The modules of one model's code folder."""

    def __init__(self, code: Path) -> None:
        """Imports nothing yet."""
        self.builtins = {**vars(builtins), "__import__": self._import}
        self._code = code
        self._modules: dict[str, ModuleType] = {}
        self._alias = f"serving_script_{next(_SERIAL)}"
        self._active = 0
        self._names = frozenset(entry.stem for entry in code.iterdir() if entry.suffix in ("", ".py", ".so"))

    def load(self, file: Path) -> ModuleType:
        """Import the model's program. It goes by a name of its own in the process, and in ``code/`` also by that of its
        file, for pickles that name it. Raises what its code raises."""
        with self.visible():
            loader = _Loader(self, self._alias, str(file))
            spec = importlib.util.spec_from_file_location(self._alias, file, loader=loader)
            if spec is None:
                raise ImportError(f"{file.name} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[self._alias] = sys.modules[file.stem] = self._modules[file.stem] = module
            loader.exec_module(module)
            return module

    @contextmanager
    def visible(self) -> Iterator[None]:
        """Within the block, and to every thread, this model's modules are importable ahead of all others."""
        with _CHANGING:
            if self._active:
                yield
                return
            self._active += 1
            displaced = {name: sys.modules[name] for name in self._modules if name in sys.modules}
            sys.modules.update(self._modules)
            sys.path.insert(0, str(self._code))
            sys.meta_path.insert(0, self)  # a finder by its one method
            try:
                yield
            finally:
                sys.meta_path.remove(self)
                sys.path.remove(str(self._code))
                self._take_out(displaced)
                self._active -= 1

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> Any:
        """Finder protocol: source files at or beneath the code folder."""
        for folder in [str(self._code)] if path is None else path:
            if Path(folder).is_relative_to(self._code):
                loader = (functools.partial(_Loader, self), importlib.machinery.SOURCE_SUFFIXES)
                found = importlib.machinery.FileFinder(folder, loader).find_spec(fullname)  # type: ignore[arg-type]
                if found is not None and found.loader is not None:
                    return found
        return None

    def close(self) -> None:
        """Forget the modules."""
        with _CHANGING:
            sys.modules.pop(self._alias, None)
            sys.path_importer_cache.pop(str(self._code), None)
            self._modules.clear()

    def _take_out(self, displaced: Mapping[str, ModuleType]) -> None:
        for name, module in list(sys.modules.items()):
            if name != self._alias and (name in self._modules or self._is_ours(module)):
                self._modules[name] = sys.modules.pop(name)
        sys.modules.update(displaced)

    def _is_ours(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        return isinstance(file, str) and Path(file).is_relative_to(self._code)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__`` for the modules of the code folder."""
        root = name.partition(".")[0]
        if level == 0 and root not in self._names:
            return builtins.__import__(name, globals, locals, fromlist, level)
        if level == 0 and name in self._modules:  # without the lock: another model's load may hold it for long
            module = self._modules[name if fromlist else root]
            if all(hasattr(module, part) for part in fromlist or ()):
                return module
        if self._active:  # also for threads that model_fn starts and waits for
            return builtins.__import__(name, globals, locals, fromlist, level)
        with self.visible():
            return builtins.__import__(name, globals, locals, fromlist, level)
