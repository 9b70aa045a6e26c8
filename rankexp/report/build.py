"""Write a study's report: HTML, Markdown, JSON, CSV and figures from one document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rankexp.analysis.study import Study
from rankexp.metrics import Metric
from rankexp.report import formats, svg
from rankexp.report.canvas import NARROW, WIDE, Document, Size
from rankexp.report.document import document
from rankexp.report.folder import write_files
from rankexp.report.sections import drawings, sections
from rankexp.safety.printable import cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS = {
    "amount": formats.amount,
    "code": formats.code,
    "confidence": formats.confidence,
    "count": formats.count,
    "decimal": formats.decimal,
    "difference": formats.difference,
    "hours": formats.hours,
    "loss": formats.loss,
    "md": formats.markdown,
    "metric": Metric.of_card,
    "p": formats.p_value,
    "percent": formats.percent,
    "rate": formats.rate,
    "score": formats.score,
    "seconds": formats.seconds,
    "size": formats.size,
    "unit": formats.unit,
}


def write_report(study: Study, folder: Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return the path of ``report.html``.

    Every file is replaced atomically, the HTML last.

    Args:
        study: The study.
        folder: Where to; ``report/`` in the study's folder by default.
    """
    beside = {"trials.csv": study.trials.map(_in_cell).to_csv(index=False, lineterminator="\n").encode()}
    if folder is None:
        return write_document(document(study), study.store.path("report/*").parent, beside, root=study.store.folder)
    return write_document(document(study), Path(folder), beside)


def write_document(
    doc: Document, folder: Path, beside: Mapping[str, bytes] | None = None, root: Path | None = None
) -> Path:
    """Write an assembled document in every form, with the files that go ``beside`` it; return ``report.html``.

    Args:
        doc: The document.
        folder: Where to.
        beside: Content of other files by name.
        root: A folder of rankexp's own that the report lies in; None for any folder, of which nothing is replaced
            that no report has written before.

    Raises:
        ConfigError: The folder holds files of others with these names.
        ForeignRecordError: It leads out of ``root``.
    """
    wide = _draw(doc, WIDE)
    drawn = {"wide": _printed(wide), "narrow": _printed(_draw(doc, NARROW))}
    files = {f"figures/{name}.svg": data for name, data in drawn["wide"].items()}
    files |= {f"figures/{name}.png": svg.png_bytes(figure) for name, figure in wide.items()}
    files["report.json"] = (json.dumps(doc, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    files |= beside or {}
    files["report.md"] = _render_markdown(doc, wide).encode()
    files["report.html"] = _render_html(doc, drawn).encode()
    write_files(folder, files, root)
    return folder / "report.html"


def render_html(doc: Document) -> str:
    """Render a document as one page that needs no other file."""
    return _render_html(doc, {"wide": _printed(_draw(doc, WIDE)), "narrow": _printed(_draw(doc, NARROW))})


def render_markdown(doc: Document) -> str:
    """Render a document as Markdown that refers to ``figures/``."""
    return _render_markdown(doc, _draw(doc, WIDE))


def _render_markdown(doc: Document, drawn: Iterable[str]) -> str:
    return _render("report.md.j2", doc, {name: f"figures/{name}.png" for name in drawn})


def _render_html(doc: Document, drawn: Mapping[str, Mapping[str, bytes]]) -> str:
    known = drawings()
    figures = {
        name: {
            variant: Markup(svg.inline(found[name], f"{variant}-{name}", known[name].caption(doc).alt))
            for variant, found in drawn.items()
        }
        for name in drawn["wide"]
    }
    return _render("report.html.j2", doc, figures)


def _render(template: str, doc: Document, figures: Mapping[str, Any]) -> str:
    known = drawings()
    words = {name: text for section in sections() for name, text in section.words(doc).items()}
    links = [link for section in sections() for link in section.links if link.shown(doc)]
    captions = {name: known[name].caption(doc) for name in figures}
    return render(
        template, doc=doc, figures={**dict.fromkeys(known), **figures}, captions=captions, links=links, **words
    )


def render(template: str, **values: Any) -> str:
    """Fill in one of the report's templates; a value that it lacks is an error."""
    return _environment().get_template(template).render(**values).rstrip("\n") + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment


def _draw(doc: Document, size: Size) -> dict[str, Figure]:
    drawn = {name: drawing.draw(doc, size) for name, drawing in drawings().items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _printed(drawn: Mapping[str, Figure]) -> dict[str, bytes]:
    return {name: svg.svg_bytes(figure) for name, figure in drawn.items()}


def _in_cell(value: object) -> object:
    return cell(value) if isinstance(value, str) else value
