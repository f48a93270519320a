"""For all tests: pytest may only be told of ``pytester`` in the top directory."""

pytest_plugins = ["pytester"]
