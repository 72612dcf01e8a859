"""The catalogue of foundation models: their files, with public URLs, sizes and SHA-256 digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alc_backend.errors import WeightsError


@dataclass(frozen=True)
class File:
    """One file: its path below the folder of models, its public URL, size in bytes and SHA-256."""

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Weights:
    """A model's files; ``folder`` is the folder of their own that they share, if any."""

    name: str
    description: str
    files: tuple[File, ...]
    folder: str | None = None

    def path_in(self, models: Path) -> Path:
        """The path that the model's loader takes: the single file, or the folder of the files."""
        return models / (self.folder or self.files[0].path)


_META = "https://dl.fbaipublicfiles.com/segment_anything/"
_DINO = "https://github.com/IDEA-Research/GroundingDINO/releases/download/"
_BERT = (
    "https://huggingface.co/google-bert/bert-base-uncased/resolve/"
    "86b5e0934494bd15c9632b12f734a8a67f723594/"
)

WEIGHTS = {
    entry.name: entry
    for entry in (
        Weights(
            "sam-vit-h",
            "Segment Anything, ViT-H: the paper's",
            (
                File(
                    "sam_vit_h_4b8939.pth",
                    _META + "sam_vit_h_4b8939.pth",
                    2_564_550_879,
                    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
                ),
            ),
        ),
        Weights(
            "sam-vit-l",
            "Segment Anything, ViT-L",
            (
                File(
                    "sam_vit_l_0b3195.pth",
                    _META + "sam_vit_l_0b3195.pth",
                    sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
                ),
            ),
        ),
        Weights(
            "sam-vit-b",
            "Segment Anything, ViT-B: the smallest",
            (
                File(
                    "sam_vit_b_01ec64.pth",
                    _META + "sam_vit_b_01ec64.pth",
                    sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                ),
            ),
        ),
        Weights(
            "groundingdino-swin-t",
            "GroundingDINO, Swin-T",
            (
                File(
                    "groundingdino_swint_ogc.pth",
                    _DINO + "v0.1.0-alpha/groundingdino_swint_ogc.pth",
                    693_997_677,
                    "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
                ),
            ),
        ),
        Weights(
            "groundingdino-swin-b",
            "GroundingDINO, Swin-B",
            (
                File(
                    "groundingdino_swinb_cogcoor.pth",
                    _DINO + "v0.1.0-alpha2/groundingdino_swinb_cogcoor.pth",
                ),
            ),
        ),
        Weights(
            "bert-base-uncased",
            "the text encoder of GroundingDINO",
            tuple(
                File(f"bert-base-uncased/{name}", _BERT + name)
                for name in (
                    "config.json",
                    "vocab.txt",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "model.safetensors",
                )
            ),
            folder="bert-base-uncased",
        ),
    )
}
"""All models by name, with published sizes and hashes where there are any."""


def chosen(names: Sequence[str]) -> list[Weights]:
    """The models with these names, or all models for no names; WeightsError for an unknown one."""
    for name in names:
        if name not in WEIGHTS:
            raise WeightsError(f"there are no weights {name!r}; choose from {', '.join(WEIGHTS)}")
    return [WEIGHTS[name] for name in names or WEIGHTS]
