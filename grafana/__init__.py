"""For Grafana and Prometheus: dashboards made by `python -m grafana.generate`, rules in prometheus/."""
