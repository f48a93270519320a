"""For all tests: pytest may only be told of ``pytester`` in the top directory."""

import signal

pytest_plugins = ["pytester"]

# Whoever starts the tests in a shell's background has these ignored, and so have all their
# children: tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
