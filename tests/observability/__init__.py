"""Rules, dashboard and the pages about them: promtool, and a real Prometheus."""
