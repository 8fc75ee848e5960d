"""A small book with latent explorers, the generators they show, and how tests use what is on its pages."""

import base64
import json
from functools import cache

import numpy as np
import torch
from pages import small_book
from torch import nn

from dcgan_lib import checkpoint, features, latent
from dcgan_lib.data import to_uint8
from dcgan_lib.models import build_generator
from dcgan_lib.page_description import describe
from dcgan_lib.page_generator import pack, unpack


def trained(way: str = "transposed", size: int = 32, channels: int = 3):
    """A generator with pictures of full contrast, whose running statistics are not those of a fresh one."""
    generator = build_generator(size, channels, latent_dim=6, width=4, upsampling=way)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in generator.layers:
            block[0].weight.mul_(20)
            if isinstance(block[1], nn.BatchNorm2d):
                block[1].bias.uniform_(-0.5, 0.5, generator=random)
        generator(torch.randn(8, 6, generator=random) * 3)
    return generator


class BrightnessReader(features.Reader):
    """Reads whether the left and the right half of an image are brighter than usual, without a network."""

    def __init__(self, generator):
        nn.Module.__init__(self)
        usual = latent.sample(generator, 200, 9)
        self.levels = torch.stack([half.mean(dim=(1, 2, 3)).median() for half in usual.chunk(2, dim=3)])
        self.label_names = {"left": ("dark", "light"), "right": ("dark", "light")}

    def read(self, images):
        means = torch.stack([half.mean(dim=(1, 2, 3)) for half in images.chunk(2, dim=3)], dim=1)
        return (means > self.levels).long(), torch.ones(len(images), 2)


DOCUMENTS = {
    "tiny": lambda: pack(*_described(trained())),
    "bare": lambda: pack(trained(channels=1), "bare", description=describe(trained(channels=1))),
    "five": lambda: pack(trained("transposed-5"), "five"),
    "resized": lambda: pack(trained("resize"), "resized"),
    "large": lambda: pack(trained(size=128), "large"),
    "cats": lambda: pack(checkpoint.load_pretrained("cats-64"), "cats-64"),
    "fashion": lambda: pack(checkpoint.load_pretrained("fashion-mnist-32"), "fashion-mnist-32"),
    "cats-fine": lambda: pack(checkpoint.load_pretrained("cats-64"), "cats-64", bits=16),
    "fashion-fine": lambda: pack(checkpoint.load_pretrained("fashion-mnist-32"), "fashion-mnist-32", bits=16),
}


def _described(generator):
    return generator, "tiny", "halves", describe(generator, BrightnessReader(generator), samples=300)


@cache
def document(name: str) -> dict:
    """What a page loads."""
    return json.loads(json.dumps(DOCUMENTS[name]()))


@cache
def tiny():
    """What the pages compute that show "tiny", in PyTorch."""
    return unpack(document("tiny"))


def images(z: torch.Tensor) -> np.ndarray:
    """The pictures of "tiny" for z (N, 6), uint8 (N, 32, 32, 3)."""
    return to_uint8(latent.generate(tiny(), z)).permute(0, 2, 3, 1).numpy()


def sample(seed: int, row: int) -> torch.Tensor:
    return latent.sample_latent(row + 1, 6, seed)[row]


def use(name: str, view: str, data: str = "tiny", *options: str) -> str:
    lines = [":::{explorer} latent", f":name: fig-{name}", f":view: {view}", f":data: {data}", ":alt: Pictures."]
    return "\n".join([*lines, *options, "", "A caption.", ":::", ""])


SUM = ":sum: light"
PAGES = {
    "index": "# Small\n\n```{toctree}\n:glob:\n*\n```\n\n" + use("explore", "explore"),
    "walk": "# Walk\n\n" + use("walk", "walk"),
    "sum": "# Sum\n\n" + use("sum", "arithmetic", "tiny", SUM),
    "wall": "# Wall\n\n" + use("wall", "grid"),
    "bare": "# Bare\n\n" + use("bare", "explore", "bare"),
    "far": "# Far\n\n" + "A line.\n\n" * 200 + use("far", "explore"),
    "both": "# Both\n\n" + use("one", "explore") + "\n" + use("two", "walk"),
    **{
        name: f"# Wall\n\n{use(f'wall-{name}', 'grid', name)}"
        for name in ("cats", "fashion", "cats-fine", "fashion-fine", "five", "resized", "large")
    },
}


# Changes ask for pictures at the latest with the next frame; one that is asked for is busy until it is there.
SETTLED = """() => new Promise(done => {
  const look = () => (document.querySelector(".explorer-live [aria-busy]") ? setTimeout(look, 10) : done());
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(look)));
})"""
PIXELS = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let text = "";
  for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
  return [canvas.width, canvas.height, btoa(text)];
}"""


def settle(page) -> None:
    page.evaluate(SETTLED)


html, address, show = small_book(PAGES, lambda: {name: document(name) for name in DOCUMENTS}, settle)


def pixels(locator) -> np.ndarray:
    """The bitmap of a canvas, uint8 (H, W, 3)."""
    width, height, packed = locator.evaluate(PIXELS)
    return np.frombuffer(base64.b64decode(packed), np.uint8).reshape(height, width, 4)[..., :3]


def assert_shows(page, selector: str, z: torch.Tensor, which: int = 0) -> None:
    """A canvas shows the picture that PyTorch makes of z, but for a grey level that may be rounded otherwise."""
    settle(page)
    found = pixels(page.locator(selector).nth(which)).astype(int)
    np.testing.assert_allclose(found, images(z[None])[0].astype(int), atol=1)
