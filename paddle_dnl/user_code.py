# SPDX-License-Identifier: Apache-2.0
"""Components of users: modules that a run imports, and installed packages that offer some.

A configuration is data. The modules that its key `custom_imports` names are imported only when the command line names them too
or says `--trust_config`, so that a stranger's file runs no code.
"""

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

from paddle_dnl.errors import ConfigError, describe, exit_of_component
from paddle_dnl.log import logger

KEY = "custom_imports"
# Python packages register components by an entry point of this group, a module that is imported.
ENTRY_POINTS = "paddle_dnl.components"

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_entry_points_are_loaded = False


def load_entry_points() -> None:
    """Imports what installed packages offer as `paddle_dnl.components`, once; what fails is one warning."""
    global _entry_points_are_loaded
    if _entry_points_are_loaded:
        return
    _entry_points_are_loaded = True
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and exit_of_component(error) is None:
                raise
            logger.warning(f"entry point {point.name} = {point.value}: not loaded: {describe(error)}")


def absolute_files(names, folder: Path):
    """`names` with the Python files among them as absolute paths, relative ones taken from `folder`."""
    if not isinstance(names, list):
        return names
    return [str((folder / n).resolve()) if isinstance(n, str) and n.endswith(".py") else n for n in names]


def check_names(names, where: str) -> None:
    """Refuses what is no list of Python files and modules.

    Raises:
        ConfigError: names the value.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: expected a list such as [my_model.py, my.package], got {names!r}")
    for name in names:
        if not name.endswith(".py") and not _MODULE.fullmatch(name):
            raise ConfigError(f"{where}: {name!r} is neither a .py file nor the name of a module")


def is_loaded(name: str) -> bool:
    """Whether a module, or the module of a Python file given by its absolute path, has been imported."""
    if not name.endswith(".py"):
        return name in sys.modules
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return any(isinstance(file, str) and file.endswith(".py") and str(Path(file).resolve()) == name for file in files)


def import_modules(names: list[str], folders: list[Path], where: str) -> None:
    """Imports modules and Python files (by absolute paths), each once.

    Args:
        names: as from `absolute_files`.
        folders: where modules are looked for after the places that Python knows.
        where: shown in errors.

    Raises:
        ConfigError: a file or module that is missing, fails, or has the name of another one that is loaded.
    """
    for name in names:
        if is_loaded(name):
            continue
        try:
            if name.endswith(".py"):
                _import_file(Path(name), where)
            else:
                for folder in folders:
                    _add_to_path(folder)
                importlib.import_module(name)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and exit_of_component(error) is None:
                raise
            raise ConfigError(f"{where}: {name}: could not be imported: {describe(error)}") from error


def _add_to_path(folder: Path) -> None:
    # At the end, so that nothing there takes the place of what is installed.
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))


def _import_file(path: Path, where: str) -> None:
    if not path.is_file():
        raise ConfigError(f"{where}: {path}: no such file")
    if path.stem in sys.modules:
        other = getattr(sys.modules[path.stem], "__file__", None) or "Python itself"
        raise ConfigError(f"{where}: {path}: a module {path.stem!r} of {other} is loaded already; rename the file")
    # Its neighbours can be imported by it.
    _add_to_path(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # Under its name, so that its classes can be pickled and other files can import it.
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def import_for_config(config: dict, path: str, named: list[str], is_trusted: bool) -> None:
    """Imports what the command line and the configuration name, and records both in `config`.

    Args:
        config: the configuration; `custom_imports` in it is replaced by all names, files by absolute paths.
        path: its file, shown in errors; modules beside it are found.
        named: what the command line names; files relative to the working directory, else to the configuration.
        is_trusted: whether names that only the file has are imported too.

    Raises:
        ConfigError: something cannot be imported, or the file names what nobody has allowed.
    """
    folder = Path(path).parent
    check_names(named, "--custom_imports")
    named = [absolute_files([name], Path() if Path(name).is_file() else folder)[0] for name in named]
    import_modules(named, [Path(), folder], "--custom_imports")
    in_file = config.get(KEY) or []
    check_names(in_file, KEY)
    in_file = absolute_files(in_file, folder)
    if is_trusted:
        import_modules(in_file, [folder], KEY)
    for name in in_file:
        if not is_loaded(name):
            raise ConfigError(
                f"{KEY}: {name} is code, and a configuration alone runs none: allow it by --custom_imports {name}, "
                "or by --trust_config for all that the file names"
            )
    if named or in_file:
        config[KEY] = list(dict.fromkeys([*in_file, *named]))


def import_for_export(named: list[str]) -> None:
    """Imports what the command line names for an exported folder: files and modules, looked for in the working directory.

    Raises:
        ConfigError: see `import_modules`.
    """
    check_names(named, "--custom_imports")
    import_modules(absolute_files(named, Path()), [Path()], "--custom_imports")
