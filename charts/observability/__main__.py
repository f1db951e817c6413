"""Writes what is made from this code into the checkout."""

from charts.observability import OUTPUTS, ROOT

for path, render in OUTPUTS.items():
    (ROOT / path).write_text(render())
