"""Render the objects that the built-in sample places into its scenes.

``make views`` (twenty minutes) writes ``alc_backend/simulate/views/CLASS.webp``: a sheet of VIEWS
views of each class, all lit from the upper left, with their outlines as the alpha channel. An
object is a signed distance field (``tools.view_shapes``); its surface is found by marching cubes
(scikit-image) and rendered by a path tracer (Mitsuba 3). ``python -m tools.render_views 1`` renders
one view of each, to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mitsuba
import numpy as np
from PIL import Image
from skimage.measure import marching_cubes

from tools.view_shapes import ANGULAR, OBJECTS, Shape

mitsuba.set_variant("scalar_rgb")

VIEWS, COLUMNS = 16, 4
SIDE = 144
"""Pixels of a view, which shows EXTENT units: a cow is a unit long."""

EXTENT = 1.72
CELLS = 150
"""Cells of the grid on which an object is sampled, along each axis."""

RAYS = 96
"""Light paths for each pixel."""


def write_mesh(path: Path, make: Callable[[Shape, np.random.Generator], None], seed: int) -> None:
    """Write the surface of an object with the colours of its vertices, as a PLY file."""
    half = EXTENT / 2
    axes = [np.linspace(-half, half, CELLS), np.linspace(-0.05, EXTENT - 0.05, CELLS)]
    grid = np.stack(np.meshgrid(axes[0], axes[1], axes[0], indexing="ij"), axis=-1)
    shape = Shape(grid.reshape(-1, 3))
    make(shape, np.random.default_rng(seed))
    volume = shape.distance.reshape(grid.shape[:3])
    step = EXTENT / (CELLS - 1)
    corners, faces, normals, _ = marching_cubes(volume, 0.0, spacing=(step,) * 3)
    at = tuple(np.clip(np.rint(corners / step).astype(int), 0, CELLS - 1).T)
    colours = shape.colours.reshape(*grid.shape[:3], 3)[at]
    corners = corners - (half, 0.05, half)
    if make not in ANGULAR:
        columns = np.hstack([corners, normals, colours])
        names = ["x", "y", "z", "nx", "ny", "nz", "r", "g", "b"]
    else:
        columns, names = np.hstack([corners, colours]), ["x", "y", "z", "r", "g", "b"]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(corners)}"]
    head += [f"property float {name}" for name in names]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    counted = np.empty(len(faces), dtype=[("n", "u1"), ("v", "<i4", 3)])
    counted["n"], counted["v"] = 3, faces
    content = "\n".join(head) + "\n"
    path.write_bytes(content.encode() + columns.astype("<f4").tobytes() + counted.tobytes())


def render(mesh: Path, turn: float, seed: int) -> Image.Image:
    """A view of a mesh that is turned by so many degrees, RGBA."""
    transform: Any = mitsuba.ScalarTransform4f
    colour = {"type": "mesh_attribute", "name": "vertex_color"}
    scene = mitsuba.load_dict({
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 5, "hide_emitters": True},
        "sensor": {
            "type": "orthographic",
            "to_world": transform().look_at(
                origin=[0, 0.81 + 1.1, 5], target=[0, 0.81, 0], up=[0, 1, 0]
            ) @ transform().scale([EXTENT / 2, EXTENT / 2, 1]),
            "film": {
                "type": "hdrfilm", "width": SIDE, "height": SIDE, "pixel_format": "rgba",
                "rfilter": {"type": "gaussian"},
            },
            "sampler": {"type": "multijitter", "sample_count": RAYS, "seed": seed},
        },
        "sky": {"type": "constant", "radiance": {"type": "rgb", "value": [0.42, 0.47, 0.55]}},
        "sun": {
            "type": "directional", "direction": [0.75, -1.0, -0.6],
            "irradiance": {"type": "rgb", "value": [2.6, 2.4, 2.05]},
        },
        "object": {
            "type": "ply", "filename": str(mesh), "to_world": transform().rotate([0, 1, 0], turn),
            "bsdf": {
                "type": "twosided",
                "bsdf": {
                    "type": "principled", "base_color": colour, "roughness": 0.5, "specular": 0.4,
                },
            },
        },
    })  # fmt: skip
    seen = np.array(mitsuba.render(scene))
    alpha = np.clip(seen[..., 3:], 0, 1)
    light = np.clip(seen[..., :3] / np.maximum(alpha, 1e-3), 0, None)
    light = light / (1 + 0.25 * light)  # bright parts keep their shape
    pixels = np.concatenate([np.clip(light, 0, 1) ** (1 / 2.2), alpha], axis=-1)
    return Image.fromarray((pixels * 255).round().astype(np.uint8), "RGBA")


def main() -> None:
    """Render every view of every object."""
    folder = Path(__file__).parents[1] / "alc_backend" / "simulate" / "views"
    folder.mkdir(exist_ok=True)
    views = int(sys.argv[1]) if len(sys.argv) > 1 else VIEWS
    for number, (name, make) in enumerate(OBJECTS.items()):
        sheet = Image.new("RGBA", (COLUMNS * SIDE, -(-views // COLUMNS) * SIDE))
        for view in range(views):
            with TemporaryDirectory() as temporary:
                mesh = Path(temporary) / "shape.ply"
                write_mesh(mesh, make, 1000 * number + view)
                turn = 360 * view / views + 11
                seen = render(mesh, turn, view)
            sheet.paste(seen, (view % COLUMNS * SIDE, view // COLUMNS * SIDE))
            print(f"{name}: view {view + 1} of {views}", flush=True)
        sheet.save(folder / f"{name}.webp", quality=88, alpha_quality=90, method=6, exact=False)


if __name__ == "__main__":
    main()
