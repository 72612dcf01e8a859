"""The checks of `alc doctor`: what keeps an installation from working, and what to do about it.

:mod:`installation` looks at this machine, :mod:`connection` at Label Studio and its token,
:mod:`projects` at each project there; :mod:`examination` runs them all. Nothing is changed unless
a repair is asked for.
"""
