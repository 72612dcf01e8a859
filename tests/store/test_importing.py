from __future__ import annotations

import pytest
from sqlalchemy import select

from alc_backend.errors import DatasetError
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES


def test_importing_again_adds_nothing(store, dataset):
    project = import_folder(store, dataset, "pets").project_id
    again = import_folder(store, dataset, "pets")
    assert (again.project_id, again.imported, again.present) == (project, 0, 3)


def test_strict_import_refuses_everything(store, dataset):
    (dataset / "objects/b.png").unlink()
    with pytest.raises(DatasetError, match=r"objects/b\.png"):
        import_folder(store, dataset, "strict", strict=True)
    with store.reading() as session:
        assert session.scalars(select(Image)).all() == []
    lenient = import_folder(store, dataset, "lenient")
    assert (lenient.imported, len(lenient.problems)) == (2, 1)
