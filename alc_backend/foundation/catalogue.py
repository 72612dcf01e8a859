"""The catalogue of foundation models: where they are published, how large, under which licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alc_backend.common.types import TextEnum
from alc_backend.errors import WeightsError
from alc_backend.foundation.kinds import BOX_THRESHOLD, BOX_THRESHOLDS

_HUB = ("config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors")


class Role(TextEnum):
    """What a model does: finds boxes, segments them, both at once, or splits text into tokens."""

    DETECTOR = "detector"
    SEGMENTER = "segmenter"
    BOTH = "detector and segmenter"
    TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Original:
    """The file that a model's authors published: its name, address and SHA-256, if one is known."""

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Model:
    """A model: its repository on the Hugging Face hub, and what is known of it.

    ``size`` is in bytes; ``threshold`` (0..1) is the score that a detection must exceed by default;
    ``compared`` says what its outputs were compared with. ``original`` may stand in place of the
    repository's ``files``. ``revision`` is a commit; None for the one that is fetched first.
    """

    name: str
    role: Role
    description: str
    repository: str
    size: int
    licence: str = "Apache-2.0"
    compared: str = "runs with small random weights; not run with the published ones yet"
    original: Original | None = None
    threshold: float = BOX_THRESHOLD
    files: tuple[str, ...] = _HUB
    revision: str | None = None
    gated: bool = False


_BERT = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
_CLIP = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_META = "https://dl.fbaipublicfiles.com/segment_anything/"
_DINO = "https://github.com/IDEA-Research/GroundingDINO/releases/download/"
_LIKE_SAM = "the same masks as segment-anything 1.0, on small weights"
_LIKE_DINO = "the same boxes and scores as groundingdino-py 0.4.0, on small weights"

MODELS = {
    model.name: model
    for model in (
        Model(
            "grounding-dino-tiny",
            Role.DETECTOR,
            "Grounding DINO, Swin-T: the paper's",
            "IDEA-Research/grounding-dino-tiny",
            690_000_000,
            compared=_LIKE_DINO,
            original=Original(
                "groundingdino_swint_ogc.pth",
                _DINO + "v0.1.0-alpha/groundingdino_swint_ogc.pth",
                "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
            ),
            files=(*_HUB, *_BERT),
        ),
        Model(
            "grounding-dino-base",
            Role.DETECTOR,
            "Grounding DINO, Swin-B",
            "IDEA-Research/grounding-dino-base",
            930_000_000,
            compared=_LIKE_DINO,
            original=Original(
                "groundingdino_swinb_cogcoor.pth",
                _DINO + "v0.1.0-alpha2/groundingdino_swinb_cogcoor.pth",
            ),
            files=(*_HUB, *_BERT),
        ),
        Model(
            "mm-grounding-dino-tiny",
            Role.DETECTOR,
            "MM-Grounding-DINO, Swin-T: retrained in the open on more data",
            "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det",
            690_000_000,
            files=(*_HUB, *_BERT),
        ),
        Model(
            "owlv2-base",
            Role.DETECTOR,
            "OWLv2, ViT-B/16: asked each prompt by itself",
            "google/owlv2-base-patch16-ensemble",
            620_000_000,
            threshold=BOX_THRESHOLDS["owlv2"],
            files=(*_HUB, *_CLIP),
        ),
        Model(
            "owlv2-large",
            Role.DETECTOR,
            "OWLv2, ViT-L/14",
            "google/owlv2-large-patch14-ensemble",
            1_750_000_000,
            threshold=BOX_THRESHOLDS["owlv2"],
            files=(*_HUB, *_CLIP),
        ),
        Model(
            "sam-vit-h",
            Role.SEGMENTER,
            "Segment Anything, ViT-H: the paper's",
            "facebook/sam-vit-huge",
            2_564_550_879,
            compared=_LIKE_SAM,
            original=Original(
                "sam_vit_h_4b8939.pth",
                _META + "sam_vit_h_4b8939.pth",
                "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            ),
        ),
        Model(
            "sam-vit-l",
            Role.SEGMENTER,
            "Segment Anything, ViT-L",
            "facebook/sam-vit-large",
            1_250_000_000,
            compared=_LIKE_SAM,
            original=Original(
                "sam_vit_l_0b3195.pth",
                _META + "sam_vit_l_0b3195.pth",
                "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            ),
        ),
        Model(
            "sam-vit-b",
            Role.SEGMENTER,
            "Segment Anything, ViT-B: the smallest of the first version",
            "facebook/sam-vit-base",
            375_000_000,
            compared=_LIKE_SAM,
            original=Original(
                "sam_vit_b_01ec64.pth",
                _META + "sam_vit_b_01ec64.pth",
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            ),
        ),
        *(
            Model(
                f"sam2.1-{size}",
                Role.SEGMENTER,
                f"Segment Anything 2.1, Hiera {size}",
                f"facebook/sam2.1-hiera-{size}",
                count,
            )
            for size, count in (
                ("tiny", 156_000_000),
                ("small", 184_000_000),
                ("base-plus", 323_000_000),
                ("large", 898_000_000),
            )
        ),
        Model(
            "sam3",
            Role.BOTH,
            "Segment Anything 3: masks of words, asked each prompt by itself",
            "facebook/sam3",
            3_440_000_000,
            licence="SAM License",
            threshold=BOX_THRESHOLDS["sam3"],
            files=(*_HUB, *_CLIP),
            gated=True,
        ),
        Model(
            "bert-base-uncased",
            Role.TOKENIZER,
            "the tokenizer for an original checkpoint of GroundingDINO",
            "google-bert/bert-base-uncased",
            700_000,
            compared="–",
            files=_BERT,
            revision="86b5e0934494bd15c9632b12f734a8a67f723594",
        ),
    )
}
"""All models by name."""

DETECTORS = tuple(n for n, m in MODELS.items() if m.role in (Role.DETECTOR, Role.BOTH))
SEGMENTERS = tuple(n for n, m in MODELS.items() if m.role == Role.SEGMENTER)
TOKENIZER = "bert-base-uncased"


def chosen(names: Sequence[str]) -> list[Model]:
    """The models with these names, or all models for no names; WeightsError for an unknown one."""
    for name in names:
        if name not in MODELS:
            raise WeightsError(f"there are no weights {name!r}; choose from {', '.join(MODELS)}")
    return [MODELS[name] for name in names or MODELS]
