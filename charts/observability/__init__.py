"""What Prometheus and Grafana are told of the operator: rules, dashboard, and the page about them, made from code.

python -m charts.observability
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from charts.observability import dashboard, pages, rules

ROOT: Final = Path(__file__).parents[2]
RULES: Final = "charts/whatsapp-operator/files/rules.yaml"
DASHBOARD: Final = "charts/whatsapp-operator/files/dashboard.json"

OUTPUTS: Final[Mapping[str, Callable[[], str]]] = {
    RULES: rules.render,
    DASHBOARD: dashboard.render,
    "docs/metrics.md": pages.metrics,
}
"""What is made, by its path in the checkout."""
