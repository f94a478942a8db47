"""From raw measurements to tables and figures."""
