"""Rendered scenes of COCO categories: what tiny-llava is trained and evaluated on.

A scene has a theme (street, park, table, room) that makes some categories likely together, as in
real pictures, so that POPE's popular and adversarial negatives differ from random ones. Each
category has its own drawing, in unit coordinates on a square tile.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

SIDE: Final = 224
TILE: Final = 128
Color = tuple[int, int, int]
Paint = Callable[["Pen", Color], None]

VIVID: Final[dict[str, Color]] = {
    "red": (200, 40, 40), "blue": (40, 90, 200), "green": (30, 140, 60), "orange": (230, 140, 20),
    "purple": (130, 50, 160), "teal": (20, 150, 160),
}  # fmt: skip
BACKGROUNDS: Final[list[tuple[Color, Color]]] = [
    ((190, 215, 240), (150, 160, 150)), ((205, 225, 245), (150, 190, 130)),
    ((235, 225, 205), (190, 160, 120)), ((220, 215, 225), (165, 150, 150)),
    ((200, 205, 210), (205, 195, 180)), ((230, 235, 225), (170, 180, 190)),
]  # fmt: skip
DARK: Final[Color] = (35, 35, 40)
LIGHT: Final[Color] = (245, 245, 240)


class Pen:
    """Draws in unit coordinates (0..1, y down) on a transparent tile."""

    def __init__(self) -> None:
        """Start with an empty tile."""
        self.tile = Image.new("RGBA", (TILE, TILE), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.tile)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Fill a rectangle."""
        self._draw.rectangle(self._scale(x0, y0, x1, y1), fill=color)

    def oval(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Fill an ellipse."""
        self._draw.ellipse(self._scale(x0, y0, x1, y1), fill=color)

    def ring(self, x0: float, y0: float, x1: float, y1: float, color: Color, width: float) -> None:
        """Outline an ellipse."""
        self._draw.ellipse(self._scale(x0, y0, x1, y1), outline=color, width=round(width * TILE))

    def shape(self, *corners: float, color: Color) -> None:
        """Fill a polygon given as x, y, x, y, ..."""
        self._draw.polygon(self._scale(*corners), fill=color)

    def line(self, *points: float, color: Color, width: float = 0.05) -> None:
        """Draw a line through x, y, x, y, ..."""
        self._draw.line(self._scale(*points), fill=color, width=round(width * TILE))

    def arc(
        self,
        box: tuple[float, float, float, float],
        start: int,
        end: int,
        color: Color,
        width: float,
    ) -> None:
        """Draw a part of an ellipse's outline, angles in degrees clockwise from three o'clock."""
        self._draw.arc(self._scale(*box), start, end, fill=color, width=round(width * TILE))

    @staticmethod
    def _scale(*values: float) -> list[float]:
        return [value * (TILE - 1) for value in values]


def person(pen: Pen, color: Color) -> None:
    """Round head, coloured trunk, arms and two legs."""
    skin = (225, 180, 150)
    pen.line(0.36, 0.62, 0.32, 0.98, color=DARK, width=0.1)
    pen.line(0.62, 0.62, 0.68, 0.98, color=DARK, width=0.1)
    pen.line(0.5, 0.36, 0.16, 0.6, color=skin, width=0.08)
    pen.line(0.5, 0.36, 0.84, 0.6, color=skin, width=0.08)
    pen.box(0.33, 0.3, 0.67, 0.66, color)
    pen.oval(0.36, 0.02, 0.64, 0.3, skin)


def bicycle(pen: Pen, color: Color) -> None:
    """Two thin wheels and a frame."""
    pen.ring(0.02, 0.42, 0.46, 0.88, DARK, 0.05)
    pen.ring(0.54, 0.42, 0.98, 0.88, DARK, 0.05)
    pen.line(0.24, 0.65, 0.42, 0.35, 0.7, 0.35, 0.48, 0.66, 0.24, 0.65, color=color, width=0.05)
    pen.line(0.76, 0.65, 0.68, 0.22, 0.8, 0.2, color=color, width=0.05)
    pen.line(0.34, 0.28, 0.5, 0.28, color=DARK, width=0.06)


def car(pen: Pen, color: Color) -> None:
    """Body with a cabin, windows and two wheels."""
    pen.shape(0.2, 0.5, 0.32, 0.24, 0.7, 0.24, 0.84, 0.5, color=color)
    pen.box(0.02, 0.48, 0.98, 0.74, color)
    pen.shape(0.28, 0.48, 0.36, 0.3, 0.5, 0.3, 0.5, 0.48, color=LIGHT)
    pen.shape(0.55, 0.48, 0.55, 0.3, 0.67, 0.3, 0.76, 0.48, color=LIGHT)
    pen.oval(0.12, 0.6, 0.38, 0.86, DARK)
    pen.oval(0.62, 0.6, 0.88, 0.86, DARK)


def traffic_light(pen: Pen, _: Color) -> None:
    """Dark box with a red, a yellow and a green lamp on a pole."""
    pen.box(0.46, 0.7, 0.54, 1.0, (90, 90, 90))
    pen.box(0.3, 0.02, 0.7, 0.74, DARK)
    lamps: list[Color] = [(220, 40, 40), (240, 200, 40), (50, 190, 80)]
    for index, lamp in enumerate(lamps):
        pen.oval(0.4, 0.06 + 0.23 * index, 0.6, 0.26 + 0.23 * index, lamp)


def stop_sign(pen: Pen, _: Color) -> None:
    """Red octagon with a white bar on a pole."""
    pen.box(0.46, 0.6, 0.54, 1.0, (110, 110, 110))
    corners = [
        0.5 + 0.36 * trig(math.pi / 8 + k * math.pi / 4) - (0.12 if trig is math.sin else 0.0)
        for k in range(8)
        for trig in (math.cos, math.sin)
    ]
    pen.shape(*corners, color=(205, 25, 30))
    pen.box(0.26, 0.32, 0.74, 0.44, LIGHT)


def bird(pen: Pen, color: Color) -> None:
    """Oval body, head with a beak, a raised wing and a tail."""
    pen.shape(0.12, 0.4, 0.4, 0.5, 0.3, 0.66, color=color)
    pen.oval(0.24, 0.42, 0.76, 0.74, color)
    pen.oval(0.64, 0.28, 0.86, 0.52, color)
    pen.shape(0.84, 0.36, 1.0, 0.42, 0.84, 0.46, color=(240, 170, 30))
    pen.shape(0.36, 0.5, 0.5, 0.08, 0.62, 0.5, color=DARK)
    pen.oval(0.74, 0.35, 0.79, 0.4, LIGHT)


def cat(pen: Pen, _: Color) -> None:
    """Face with pointed ears, eyes and whiskers."""
    fur = (120, 100, 90)
    pen.shape(0.14, 0.46, 0.18, 0.04, 0.48, 0.26, color=fur)
    pen.shape(0.86, 0.46, 0.82, 0.04, 0.52, 0.26, color=fur)
    pen.oval(0.12, 0.2, 0.88, 0.94, fur)
    pen.oval(0.28, 0.42, 0.42, 0.56, (160, 220, 80))
    pen.oval(0.58, 0.42, 0.72, 0.56, (160, 220, 80))
    pen.shape(0.44, 0.64, 0.56, 0.64, 0.5, 0.72, color=(230, 140, 150))
    pen.line(0.02, 0.62, 0.4, 0.7, color=LIGHT, width=0.02)
    pen.line(0.98, 0.62, 0.6, 0.7, color=LIGHT, width=0.02)


def umbrella(pen: Pen, color: Color) -> None:
    """Half disc on a stick with a hook."""
    pen._draw.pieslice(pen._scale(0.02, 0.04, 0.98, 1.0), 180, 360, fill=color)
    pen.line(0.5, 0.05, 0.5, 0.86, color=DARK, width=0.05)
    pen.arc((0.5, 0.76, 0.72, 0.98), 0, 180, DARK, 0.05)
    pen.line(0.34, 0.08, 0.26, 0.5, color=LIGHT, width=0.03)
    pen.line(0.66, 0.08, 0.74, 0.5, color=LIGHT, width=0.03)


def kite(pen: Pen, color: Color) -> None:
    """Diamond with a cross and a waving tail."""
    pen.shape(0.6, 0.02, 0.92, 0.3, 0.5, 0.68, 0.28, 0.22, color=color)
    pen.line(0.6, 0.02, 0.5, 0.68, color=LIGHT, width=0.03)
    pen.line(0.28, 0.22, 0.92, 0.3, color=LIGHT, width=0.03)
    pen.line(0.5, 0.68, 0.36, 0.76, 0.42, 0.86, 0.22, 0.98, color=DARK, width=0.04)


def sports_ball(pen: Pen, color: Color) -> None:
    """White ball with coloured patches."""
    pen.oval(0.1, 0.1, 0.9, 0.9, LIGHT)
    pen.ring(0.1, 0.1, 0.9, 0.9, DARK, 0.04)
    pen.shape(0.5, 0.34, 0.65, 0.46, 0.6, 0.64, 0.4, 0.64, 0.35, 0.46, color=color)
    for x, y in ((0.5, 0.16), (0.82, 0.4), (0.7, 0.78), (0.3, 0.78), (0.18, 0.4)):
        pen.line(0.5, 0.5, x, y, color=color, width=0.05)


def bottle(pen: Pen, _: Color) -> None:
    """Green body with a neck, a cap and a pale label."""
    pen.box(0.42, 0.02, 0.58, 0.12, (200, 160, 60))
    pen.box(0.44, 0.1, 0.56, 0.36, (30, 110, 60))
    pen.shape(0.44, 0.3, 0.56, 0.3, 0.7, 0.46, 0.3, 0.46, color=(30, 110, 60))
    pen.box(0.3, 0.44, 0.7, 0.98, (30, 110, 60))
    pen.box(0.3, 0.58, 0.7, 0.8, LIGHT)


def cup(pen: Pen, color: Color) -> None:
    """Wide mug with a handle and a dark drink."""
    pen.ring(0.6, 0.36, 0.98, 0.74, color, 0.08)
    pen.shape(0.08, 0.24, 0.78, 0.24, 0.68, 0.9, 0.18, 0.9, color=color)
    pen.oval(0.08, 0.14, 0.78, 0.34, LIGHT)
    pen.oval(0.14, 0.18, 0.72, 0.3, (80, 50, 30))


def banana(pen: Pen, _: Color) -> None:
    """Thick yellow arc with dark ends."""
    pen.arc((0.05, -0.35, 0.95, 0.85), 10, 170, (245, 210, 50), 0.2)
    pen.oval(0.04, 0.32, 0.16, 0.46, (90, 70, 30))
    pen.oval(0.84, 0.32, 0.96, 0.46, (90, 70, 30))


def apple(pen: Pen, _: Color) -> None:
    """Red fruit with a stem and a leaf."""
    red = (190, 30, 45)
    pen.oval(0.1, 0.24, 0.6, 0.94, red)
    pen.oval(0.4, 0.24, 0.9, 0.94, red)
    pen.line(0.5, 0.34, 0.54, 0.06, color=(90, 60, 30), width=0.06)
    pen.shape(0.54, 0.2, 0.72, 0.04, 0.88, 0.12, 0.7, 0.24, color=(50, 150, 60))


def pizza(pen: Pen, _: Color) -> None:
    """A slice with a crust and toppings."""
    pen.shape(0.04, 0.16, 0.96, 0.16, 0.5, 0.98, color=(245, 205, 100))
    pen.box(0.02, 0.06, 0.98, 0.2, (180, 120, 60))
    for x, y in ((0.32, 0.34), (0.66, 0.32), (0.5, 0.56), (0.49, 0.78)):
        pen.oval(x - 0.09, y - 0.09, x + 0.09, y + 0.09, (195, 50, 40))


def chair(pen: Pen, _: Color) -> None:
    """Side view: back, seat and legs."""
    wood = (140, 90, 50)
    pen.box(0.16, 0.02, 0.28, 0.98, wood)
    pen.box(0.16, 0.5, 0.84, 0.62, wood)
    pen.box(0.72, 0.5, 0.84, 0.98, wood)
    pen.box(0.28, 0.12, 0.4, 0.44, (170, 120, 70))


def clock(pen: Pen, color: Color) -> None:
    """Round face with a coloured rim, four marks and two hands."""
    pen.oval(0.04, 0.04, 0.96, 0.96, color)
    pen.oval(0.16, 0.16, 0.84, 0.84, LIGHT)
    pen.line(0.5, 0.5, 0.5, 0.24, color=DARK, width=0.06)
    pen.line(0.5, 0.5, 0.7, 0.58, color=DARK, width=0.06)
    for x, y in ((0.5, 0.2), (0.5, 0.8), (0.2, 0.5), (0.8, 0.5)):
        pen.oval(x - 0.03, y - 0.03, x + 0.03, y + 0.03, DARK)


def book(pen: Pen, color: Color) -> None:
    """Open book with lines of text."""
    pen.shape(0.02, 0.24, 0.5, 0.34, 0.98, 0.24, 0.98, 0.84, 0.5, 0.94, 0.02, 0.84, color=color)
    pen.shape(0.08, 0.2, 0.49, 0.3, 0.49, 0.86, 0.08, 0.76, color=LIGHT)
    pen.shape(0.92, 0.2, 0.51, 0.3, 0.51, 0.86, 0.92, 0.76, color=LIGHT)
    for y in (0.36, 0.48, 0.6):
        pen.line(0.15, y, 0.42, y + 0.06, color=DARK, width=0.03)
        pen.line(0.58, y + 0.06, 0.85, y, color=DARK, width=0.03)


@dataclass(frozen=True, slots=True)
class Category:
    """A COCO category that scenes can hold."""

    id: int  # COCO's own
    name: str
    supercategory: str
    paint: Paint


CATEGORIES: Final[list[Category]] = [
    Category(1, "person", "person", person),
    Category(2, "bicycle", "vehicle", bicycle),
    Category(3, "car", "vehicle", car),
    Category(10, "traffic light", "outdoor", traffic_light),
    Category(13, "stop sign", "outdoor", stop_sign),
    Category(16, "bird", "animal", bird),
    Category(17, "cat", "animal", cat),
    Category(28, "umbrella", "accessory", umbrella),
    Category(37, "sports ball", "sports", sports_ball),
    Category(38, "kite", "sports", kite),
    Category(44, "bottle", "kitchen", bottle),
    Category(47, "cup", "kitchen", cup),
    Category(52, "banana", "food", banana),
    Category(53, "apple", "food", apple),
    Category(59, "pizza", "food", pizza),
    Category(62, "chair", "furniture", chair),
    Category(84, "book", "indoor", book),
    Category(85, "clock", "indoor", clock),
]
BY_NAME: Final = {category.name: category for category in CATEGORIES}
# Whose body has the colour that is drawn; of others a part has it, or nothing.
COLORED: Final = ("bird", "car", "cup", "kite", "umbrella")

# How likely a category is in a theme, relative to the others; what is not named weighs RARE.
RARE: Final = 0.15
THEMES: Final[dict[str, dict[str, float]]] = {
    "street": {"car": 4, "person": 3, "traffic light": 2, "bicycle": 2, "stop sign": 2,
               "umbrella": 1, "bird": 0.5},
    "park": {"person": 3, "bird": 3, "kite": 2, "sports ball": 2, "bicycle": 1.5, "umbrella": 1.5},
    "table": {"cup": 4, "pizza": 2, "apple": 2, "banana": 2, "bottle": 2, "book": 1},
    "room": {"chair": 4, "clock": 2, "cat": 2, "book": 2, "bottle": 1, "cup": 1, "person": 1},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placed:
    """One object of a scene: its category, bounding box (x, y, width, height) and area, pixels.

    `color` is one of VIVID's names; None for what is of several colours.
    """

    name: str
    bbox: tuple[int, int, int, int]
    area: int
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A rendered picture and what is in it, largest object first."""

    image: Image.Image
    theme: str
    objects: tuple[Placed, ...]

    @property
    def names(self) -> list[str]:
        """Distinct categories, in the order of the objects."""
        return list(dict.fromkeys(placed.name for placed in self.objects))


def render(rng: random.Random) -> Scene:
    """Render a random scene: two to five categories at random places and sizes."""
    theme = rng.choice(list(THEMES))
    image = _background(rng)
    placed: list[Placed] = []
    for name in _choose(theme, rng.choice([2, 2, 3, 3, 3, 4, 4, 5]), rng):
        for _ in range(rng.choices([1, 2, 3], weights=[75, 20, 5])[0]):
            place(image, BY_NAME[name], placed, rng)
    objects = sorted(placed, key=lambda item: (-item.area, item.name, item.bbox))
    return Scene(image, theme, tuple(objects))


def _choose(theme: str, count: int, rng: random.Random) -> list[str]:
    """Draw distinct categories by the theme's weights (Efraimidis-Spirakis keys)."""
    weights = THEMES[theme]
    keys = {c.name: rng.random() ** (1 / weights.get(c.name, RARE)) for c in CATEGORIES}
    return sorted(keys, key=lambda name: -keys[name])[:count]


def _background(rng: random.Random) -> Image.Image:
    """Two bands of colour with a horizon and a few faint stripes."""
    far, near = rng.choice(BACKGROUNDS)
    shade = [rng.randint(-15, 15) for _ in range(3)]
    far, near = (
        (
            min(color[0] + shade[0], 255),
            min(color[1] + shade[1], 255),
            min(color[2] + shade[2], 255),
        )
        for color in (far, near)
    )
    image = Image.new("RGB", (SIDE, SIDE), far)
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, rng.randint(SIDE // 3, SIDE * 2 // 3), SIDE, SIDE], fill=near)
    for _ in range(rng.randint(0, 4)):
        y = rng.randint(0, SIDE)
        stripe = (near[0] - 12, near[1] - 12, near[2] - 12)
        draw.line([0, y, SIDE, y + rng.randint(-20, 20)], fill=stripe, width=2)
    return image


def place(image: Image.Image, category: Category, placed: list[Placed], rng: random.Random) -> None:
    """Paint one object where it covers little of the others, or not at all in a crowded scene."""
    pen = Pen()
    color = rng.choice(list(VIVID))
    category.paint(pen, VIVID[color])
    tile = pen.tile.rotate(rng.uniform(-12, 12), resample=Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = rng.randint(48, 92)
    tile = tile.resize((side, round(side * rng.uniform(0.88, 1.14))), Image.Resampling.LANCZOS)
    tile = tile.crop(tile.getbbox())
    width, height = tile.size
    for _ in range(60):
        x, y = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
        box = (x, y, width, height)
        if all(_overlap(box, other.bbox) < 0.12 for other in placed):
            break
    else:
        return
    image.paste(tile, (x, y), tile)
    area = sum(tile.getchannel("A").histogram()[128:])
    placed.append(Placed(category.name, box, area, color if category.name in COLORED else None))


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Return the share of the smaller box that the two have in common."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])
