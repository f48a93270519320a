"""Machines that the user starts by hand: ``pytest-hil vm``.

Each is owned by a server process of its own, which outlives the command that started it.
``record`` is what is known of them on disk, ``wire`` how a command talks to a server,
``server`` that process, ``client`` the commands' side.
"""
