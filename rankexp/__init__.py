"""Which LoRA rank? Sweeps, paired statistics over seeds and examples, and a report that says how sure it is."""

TYPE_CHECKING = False  # known to type checkers; importing it might run a typing.py of the current folder
if TYPE_CHECKING:
    from rankexp.analysis.study import load_study as load_study

__version__ = "0.1.0"
__all__ = ["__version__", "load_study"]


def __getattr__(name: str) -> object:
    """Import the reading of studies only when it is asked for: pandas and scipy take half a second."""
    if name == "load_study":
        from rankexp.analysis.study import load_study

        return load_study
    raise AttributeError(f"module 'rankexp' has no attribute {name!r}")
