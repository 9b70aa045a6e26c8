"""Modules that lie in a folder of somebody else, where nothing that a command runs may import them."""

from collections.abc import Iterable
from pathlib import Path

SHADOWED = ("mlflow", "cloudpickle", "queue", "sitecustomize", "usercustomize", "torch", "json", "pip")
"""Names of modules that a program might import from where it stands."""


def plant_modules(folder: Path, marker: Path, names: Iterable[str], *, broken: bool = False) -> None:
    """Put modules into a folder that leave their names in a file when they are imported, and may then fail."""
    for name in names:
        fails = f"raise ImportError({name!r})\n" if broken else ""
        text = f"open({str(marker)!r}, 'a').write({name + chr(10)!r})\n{fails}"
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
