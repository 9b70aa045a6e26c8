"""The report: tables, figures and one self-contained HTML file, all from the record."""
