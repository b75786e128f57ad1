from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from fastinpaint.data.holes import PRESETS, Boxes, Mixture, Strokes, hole_rng
from fastinpaint.data.masks import DrawnHoles

quick = settings(max_examples=25, deadline=None)
presets, sides, seeds = st.sampled_from(list(PRESETS)), st.integers(8, 160), st.integers(0, 2**32)


@quick
@given(presets, sides, sides, seeds)
def test_a_hole_is_neither_empty_nor_the_whole_image(name, height, width, seed):
    hole = PRESETS[name](height, width, np.random.default_rng(seed))
    assert hole.shape == (height, width) and hole.dtype == bool
    assert hole.any() and not hole.all()
    if name in ("thin", "medium", "thick"): assert hole.mean() <= 0.5


@quick
@given(presets, st.integers(1, 3), st.integers(2, 3), seeds)
def test_even_tiny_images_get_a_hole(name, height, width, seed):
    hole = PRESETS[name](height, width, np.random.default_rng(seed))
    assert hole.any() and not hole.all()


@quick
@given(presets, sides, sides, seeds)
def test_a_hole_depends_on_size_and_generator_alone(name, height, width, seed):
    first, again = (PRESETS[name](height, width, np.random.default_rng(seed)) for _ in range(2))
    assert (first == again).all()


@pytest.mark.parametrize("name", PRESETS)
def test_holes_scale_with_the_image(name):
    small, large = (np.mean([PRESETS[name](n, n, np.random.default_rng(i)).mean()
                             for i in range(150)]) for n in (128, 256))
    assert large == pytest.approx(small, abs=0.05)


def test_presets_differ_as_their_names_say():
    inner = {}  # what part of the holes is more than 5 pixels inside
    for name in "thin", "medium", "thick":
        holes = [Image.fromarray(PRESETS[name](128, 128, np.random.default_rng(i))) for i in range(60)]
        kept = [np.mean(o.convert("L").filter(ImageFilter.MinFilter(11))) for o in holes]
        inner[name] = np.sum(kept) / np.sum([np.mean(o.convert("L")) for o in holes])
    assert 2 * inner["thin"] < inner["medium"] < inner["thick"] / 1.5
    assert PRESETS["center"](256, 256).mean() == 0.25


def test_outpaint_touches_the_border_and_keeps_the_middle():
    for i in range(20):
        hole = PRESETS["outpaint"](64, 96, np.random.default_rng(i))
        assert not hole[24:40, 34:62].any()
        assert any(side.all() for side in (hole[0], hole[-1], hole[:, 0], hole[:, -1]))


def test_a_mixture_chooses_by_weight_and_keeps_to_its_limit():
    small, large = (Boxes((1, 1), (side, side)) for side in (32, 192))
    sampler, rng = Mixture(((small, 3), (large, 1))), np.random.default_rng(0)
    shares = np.array([sampler(64, 64, rng).mean() for _ in range(400)])
    assert set(shares) == {1 / 64, 9 / 16} and 0.68 < (shares == 1 / 64).mean() < 0.82
    limited = Mixture(((small, 3), (large, 1)), limit=0.5)
    assert {limited(64, 64, rng).mean() for _ in range(50)} == {1 / 64}
    assert Mixture(((large, 1),), limit=0.5)(64, 64, rng).mean() == 0.25  # the central hole


def test_boxes_keep_away_from_the_border():
    rng, sampler = np.random.default_rng(0), Mixture(((Boxes((1, 4), (30, 150), 10), 1),))
    for _ in range(20):
        hole = sampler(256, 256, rng)
        assert hole.sum() == hole[10:-10, 10:-10].sum()


def test_train_holes_vary():
    rng = np.random.default_rng(0)
    holes = [PRESETS["train"](64, 64, rng).tobytes() for _ in range(10)]
    assert len(set(holes)) == 10


def test_a_callable_is_a_sampler_and_its_result_is_checked():
    rng = np.random.default_rng(0)
    upper = DrawnHoles(lambda h, w, rng: np.arange(h)[:, None] < np.full(w, h // 2)).draw(4, 6, rng)
    assert upper.dtype == np.uint8 and upper.sum() == 12
    with pytest.raises(ValueError, match=r"shape \(6, 4\)"):
        DrawnHoles(lambda h, w, rng: np.zeros((w, h))).draw(4, 6, rng)
    with pytest.raises(ValueError, match="other than 0 and 1"):
        DrawnHoles(lambda h, w, rng: np.full((h, w), 255)).draw(4, 6, rng)


def test_the_generator_of_a_hole_depends_on_seed_and_name():
    def drawn(seed, name): return hole_rng(seed, name).integers(0, 2**32)
    assert drawn(1, "a.jpg") == drawn(1, "a.jpg")
    assert len({drawn(seed, name) for seed in (0, 1) for name in ("a.jpg", "b.jpg")}) == 4


# LaMa's generator of masks, said again in terms of its settings

LAMA = dict(  # least and most strokes, max_len, max_width; least and most boxes, sides, margin; odds, limit
    train=((1, 5, 200, 100), (1, 4, 30, 150, 10), 1, 1), thin=((4, 50, 40, 10), (), 0, 0.5),
    medium=((4, 5, 100, 50), (1, 5, 10, 50, 0), 0.3, 0.5),
    thick=((1, 5, 200, 100), (1, 3, 30, 150, 10), 0.3, 0.5))


def lama_lines(least, most, max_len, max_width, size, rng):
    "Ends x, y, x, y and width of the segments of one hole, stroke by stroke"
    strokes = []
    for i in range(rng.integers(least, most + 2)):
        (x, y), lines = rng.integers(size, size=2).tolist(), []
        for _ in range(1 + rng.integers(5)):
            angle = 0.01 + rng.integers(4)
            if i % 2 == 0: angle = 2 * np.pi - angle
            length, width = 10 + rng.integers(max_len), 5 + int(rng.integers(max_width))
            end = np.array((x + length * np.sin(angle), y + length * np.cos(angle))).astype(int)
            lines.append((x, y, *end.clip(0, size).tolist(), width))
            x, y = lines[-1][2:4]
        strokes.append(lines)
    return strokes


def lama_hole(name, size, rng):
    cv2, (strokes, boxes, odds, limit) = pytest.importorskip("cv2"), LAMA[name]
    hole = np.zeros((size, size), np.uint8)
    if rng.random() < 1 / (1 + odds):
        for lines in lama_lines(*strokes, size, rng):
            for x, y, x1, y1, width in lines: cv2.line(hole, (x, y), (x1, y1), 1, width)
    else:
        least, most, low, high, margin = boxes
        for _ in range(rng.integers(least, most + 1)):
            sides = rng.integers(low, high + 1, 2)
            x, y = (rng.integers(margin, size - margin - o + 1) for o in sides)
            hole[y:y + sides[1], x:x + sides[0]] = 1
    return hole if hole.mean() <= limit else lama_hole(name, size, rng)


def near(ours, theirs, errors=5):
    "Whether two samples' means are within some standard errors of each other"
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    return abs(a.mean() - b.mean()) < errors * np.sqrt(a.var() / len(a) + b.var() / len(b)) + 1e-9


@pytest.mark.parametrize("name", LAMA)
def test_holes_are_as_large_as_lamas(name):
    rng = np.random.default_rng(0)
    ours = [PRESETS[name](256, 256, rng).mean() for _ in range(2000)]
    theirs = [lama_hole(name, 256, rng).mean() for _ in range(2000)]
    assert near(ours, theirs, errors=4)
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.1)


def drawn_lines(strokes, size, rng):
    "As `lama_lines`, of our `strokes`, with the width that is drawn"
    found, here = [], [None]

    def line(ends, fill, width):
        if here[0] != ends[:2]: found.append([])
        found[-1].append((*ends, width))
        here[0] = ends[2:]

    draw = SimpleNamespace(im=SimpleNamespace(size=(size, size)), line=line, circle=lambda *_, **__: None)
    strokes.paint(draw, 1, rng)
    return found


def measures(holes):
    "Of lists of strokes: how many in each, how many segments each has, and the segments' measures"
    lines = [(k % 2, *line) for hole in holes for k, stroke in enumerate(hole) for line in stroke]
    odd, x, y, x1, y1, width = np.array(lines).T
    return dict(strokes=[*map(len, holes)], segments=[len(stroke) for hole in holes for stroke in hole],
                length=np.hypot(x1 - x, y1 - y).round(), width=width,
                angle=np.arctan2(x1 - x, y1 - y).round() + 10 * odd)


@pytest.mark.parametrize("name", LAMA)
def test_strokes_are_distributed_as_lamas(name):
    ours, theirs, rng, size = [], [], np.random.default_rng(0), 10**9  # so large that nothing is clipped
    while sum(map(len, ours)) < 10_000:
        ours.append(drawn_lines(PRESETS[name].kinds[0][0], size, rng))
        drawn = lama_lines(*LAMA[name][0], size, rng)
        theirs.append([[(*o, 2 * -(-w // 2) + 1) for *o, w in lines] for lines in drawn])
    for what, found in measures(ours).items():
        expected = measures(theirs)[what]
        assert near(found, expected), what
        assert (np.min(found), np.max(found)) == (np.min(expected), np.max(expected)), what
        if what in ("segments", "angle"):
            assert np.unique(found).tolist() == np.unique(expected).tolist(), what
            for value in np.unique(expected): assert near(found == value, expected == value), (what, value)


def test_a_brush_covers_what_opencvs_does():
    cv2, strokes = pytest.importorskip("cv2"), Strokes((1, 1), (60, 60), (5, 104))
    for seed in range(50):
        (lines,) = drawn_lines(strokes, 256, np.random.default_rng(seed))
        ours, theirs = Image.new("L", (256, 256)), np.zeros((256, 256), np.uint8)
        strokes.paint(ImageDraw.Draw(ours), 1, np.random.default_rng(seed))
        for x, y, x1, y1, brush in lines: cv2.line(theirs, (x, y), (x1, y1), 1, brush - 1)
        assert (theirs & ours).sum() / (theirs | ours).sum() > 0.9


@pytest.mark.parametrize("name, count, side, margin", [
    ("train", (1, 4), (30, 150), 10), ("medium", (1, 5), (10, 50), 0), ("thick", (1, 3), (30, 150), 10)])
def test_boxes_are_as_large_and_as_many_as_lamas(name, count, side, margin):
    drawn, total, rng = [], [0], np.random.default_rng(0)
    draw = SimpleNamespace(im=SimpleNamespace(size=(256, 256)), rectangle=lambda o, fill: drawn.append(o))
    for _ in range(4000):
        PRESETS[name].kinds[1][0].paint(draw, 1, rng)
        total.append(len(drawn))
    ends, counts = np.array(drawn), np.diff(total)  # ends [boxes, 2, 2]: left, top; right, bottom
    sides = ends[:, 1] - ends[:, 0] + 1
    assert (counts.min(), counts.max()) == count and (sides.min(), sides.max()) == side
    assert (ends.min(), ends.max()) == (margin, 255 - margin)
