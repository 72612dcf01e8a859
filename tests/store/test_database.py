from __future__ import annotations

import pytest
from sqlalchemy import text

from alc_backend.errors import SettingsError
from alc_backend.store.database import Store


def test_a_database_of_another_version_is_refused_with_the_remedy(settings):
    with Store(settings).session() as session:
        session.execute(text("ALTER TABLE scores DROP COLUMN dominant"))
    with pytest.raises(SettingsError, match=r"table scores has no dominant.*ALC_DATA_DIR"):
        Store(settings)
