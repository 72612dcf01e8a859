from __future__ import annotations

import pytest

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import uploads
from alc_backend.labelstudio.client import MOST_FILES
from tests.fake_label_studio import DATASET_PROJECT, QUERY_PROJECT, FakeLabelStudio


@pytest.fixture
def label_studio():
    return FakeLabelStudio()


@pytest.fixture
def client(label_studio):
    with label_studio.client() as found:
        yield found


@pytest.fixture
def project(client):
    return uploads.sheets_project(client, QUERY_PROJECT)


def sheets(number):
    return {f"{index:032x}": b"sheet %d" % index for index in range(number)}


def imports(label_studio, project):
    return label_studio.asked(f"/api/projects/{project}/import", "POST")


def test_a_query_project_itself_takes_no_pictures(client):
    with pytest.raises(LabelStudioError, match="more than one data key"):
        uploads.upload_sheets(client, QUERY_PROJECT, sheets(1))


def test_the_project_with_the_sheets_is_made_once(client, project):
    assert uploads.sheets_project(client, QUERY_PROJECT) == project
    client.patch(f"/api/projects/{project}", {"title": "another"})
    assert uploads.sheets_project(client, QUERY_PROJECT) != project
    assert uploads.sheets_project(client, 1) != uploads.sheets_project(client, QUERY_PROJECT)


def test_many_sheets_go_up_in_few_requests(label_studio, client, project):
    wanted = sheets(2 * MOST_FILES + 1)
    found = uploads.upload_sheets(client, project, wanted)
    assert {key: label_studio.files[address] for key, address in found.items()} == wanted
    assert len(imports(label_studio, project)) == 3


def test_large_sheets_are_spread_over_requests(label_studio, client, project, monkeypatch):
    monkeypatch.setattr(uploads, "REQUEST_BYTES", 20)
    found = uploads.upload_sheets(client, project, sheets(5))
    assert len(found) == 5
    assert len(imports(label_studio, project)) == 3


def test_a_sheet_that_label_studio_drops_is_named(label_studio, client, project):
    label_studio.fail(200, f"/api/projects/{project}/file-uploads", body=[{"id": 1}])
    with pytest.raises(LabelStudioError, match=f"page {0:032x}"):
        uploads.upload_sheets(client, project, sheets(1))


def test_sheets_that_were_uploaded_are_found_by_their_pages(client, project):
    first = uploads.upload_sheets(client, project, sheets(2))
    again = uploads.upload_sheets(client, project, sheets(1))
    found = uploads.uploaded_sheets(client, project)
    assert {key: set(those.values()) for key, those in found.items()} == {
        f"{0:032x}": {first[f"{0:032x}"], again[f"{0:032x}"]},
        f"{1:032x}": {first[f"{1:032x}"]},
    }


def test_sheets_of_pages_that_are_gone_are_removed_and_others_stay(client, project, tmp_path):
    other = tmp_path / "other.jpg"
    other.write_bytes(b"picture")
    client.upload(project, [other])
    uploads.upload_sheets(client, project, sheets(700))
    uploads.upload_sheets(client, project, sheets(1))
    gone = list(sheets(600))
    assert uploads.remove_sheets(client, project, gone) == 601
    assert uploads.uploaded_sheets(client, project).keys() == sheets(700).keys() - set(gone)
    assert uploads.remove_sheets(client, project, gone) == 0
    everything = client.get(f"/api/projects/{project}/file-uploads", all="true")
    assert len(everything) == 101


def test_no_page_removes_no_sheet(label_studio, client, project):
    uploads.upload_sheets(client, project, sheets(3))
    assert uploads.remove_sheets(client, project, []) == 0
    assert len(uploads.uploaded_sheets(client, project)) == 3


def test_uploads_of_other_projects_are_no_sheets(client, project, tmp_path):
    picture = tmp_path / f"page-{0:032x}.jpg"
    picture.write_bytes(b"picture")
    client.upload(DATASET_PROJECT, [picture])
    assert uploads.uploaded_sheets(client, project) == {}
