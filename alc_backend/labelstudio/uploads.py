"""The sheets of pages as uploads in Label Studio, which only those who are logged in can see.

Label Studio takes pictures only into projects whose tasks have nothing but a picture, and query
tasks have more: so the sheets of a query project lie in a project of their own, without tasks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.client import MOST_FILES, Client, name_given

REQUEST_BYTES = 64 * 2**20
"""Bytes of sheets in one request, unless a single one has more; Label Studio takes 250 MB."""

DELETED_AT_ONCE = 500
"""Uploads that one request deletes."""

TITLE = "Pictures of project {}'s questions"
"""Title of the project with the sheets of a query project."""

DESCRIPTION = "Pictures that the questions in project {} show. There is nothing to label here."

CONFIG = '<View><Image name="image" value="$image"/></View>'
"""Its label config."""


def sheets_project(client: Client, query_project: int) -> int:
    """The project (id) that has the sheets of a query project; it is made where there is none."""
    title = TITLE.format(query_project)
    listed = client.get("/api/projects/", title=title, page_size=100)["results"]
    found = [int(project["id"]) for project in listed if project["title"] == title]
    if found:
        return min(found)
    body = {
        "title": title,
        "description": DESCRIPTION.format(query_project),
        "label_config": CONFIG,
    }
    return int(client.post("/api/projects/", body)["id"])


def upload_sheets(client: Client, project: int, sheets: Mapping[str, bytes]) -> dict[str, str]:
    """Upload sheets (JPEG), by the keys of their pages; returns the address of each.

    ``project`` is that of :func:`sheets_project`, here and in what follows. Raises LabelStudioError
    naming a page whose sheet Label Studio did not keep.
    """
    found: dict[str, str] = {}
    for part in _requests(sheets):
        kept = client.upload_files(project, [(_name(key), sheets[key]) for key in part])
        for key in part:
            if _name(key) not in kept:
                raise LabelStudioError(
                    f"page {key}: Label Studio did not keep its sheet; start the round again"
                )
            found[key] = kept[_name(key)]
    return found


def uploaded_sheets(client: Client, project: int) -> dict[str, dict[int, str]]:
    """The sheets that the token's user has uploaded: the page's key → upload id → address."""
    found: dict[str, dict[int, str]] = {}
    for upload in client.get(f"/api/projects/{project}/file-uploads", all="true"):
        name = re.fullmatch(r"page-([0-9a-f]{32})\.jpg", name_given(upload["file"]))
        if name is not None:
            address = client.addresses.upload(upload["file"])
            found.setdefault(name[1], {})[int(upload["id"])] = address
    return found


def remove_sheets(client: Client, project: int, pages: Collection[str]) -> int:
    """Delete the sheets of pages (keys), once their tasks are gone; returns how many there were.

    Nothing happens for pages without one.
    """
    if not pages:
        return 0
    there = uploaded_sheets(client, project)
    uploads = iter([number for key in there.keys() & set(pages) for number in there[key]])
    removed = 0
    while part := [*islice(uploads, DELETED_AT_ONCE)]:  # without a list, all would be deleted
        client.delete(f"/api/projects/{project}/file-uploads", {"file_upload_ids": part})
        removed += len(part)
    return removed


def _name(page: str) -> str:
    return f"page-{page}.jpg"


def _requests(sheets: Mapping[str, bytes]) -> Iterator[list[str]]:
    """The keys of sheets that fit into one request each."""
    part: list[str] = []
    size = 0
    for key, content in sheets.items():
        if part and (len(part) == MOST_FILES or size + len(content) > REQUEST_BYTES):
            yield part
            part, size = [], 0
        part.append(key)
        size += len(content)
    if part:
        yield part
