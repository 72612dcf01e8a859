"""``python -m alc_backend`` is the ``alc`` command."""

from alc_backend.cli import main

main()
