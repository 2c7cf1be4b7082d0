"""What was found, for people: the table that ends a run and the page ``report.html``."""
