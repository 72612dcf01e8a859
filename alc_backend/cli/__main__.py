"""``python -m alc_backend.cli`` is the ``alc`` command."""

from alc_backend.cli.main import main

main()
