"""What Prometheus, Grafana, Telegraf and Node-RED are given."""
