"""For our own tests."""

import hypothesis

# A busy host is no failure: speed is the benchmarks' matter.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")
