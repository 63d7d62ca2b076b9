"""How fast and how exact the plugin's kernel is, beside others: ``python -m plugins.bench``. See README.md."""
