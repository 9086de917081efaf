"""What pingmon brings for Prometheus and Grafana, against what its programs really export."""
