import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("cv2", reason="objects need OpenCV: pip install 'fastinpaint[demo]'")

# ruff: noqa: E402
from fastinpaint.core.limits import Limits, Stopped
from fastinpaint.serve import objects


def scene(size, box):
    "A picture of a blue disc in `box` on noisy sand, and where it is"
    noise = np.random.default_rng(0).normal((200, 170, 120), 12, (*size[::-1], 3)).clip(0, 255)
    image, where = Image.fromarray(noise.astype(np.uint8)), Image.new("1", size)
    ImageDraw.Draw(image).ellipse(box, (40, 70, 160))
    ImageDraw.Draw(where).ellipse(box, 1)
    return image, np.asarray(where)


def overlap(found, where):
    found = np.asarray(found) >= 128
    return (found & where).sum()/(found | where).sum()


@pytest.mark.parametrize("size", [(240, 160), (1500, 1000)])
def test_a_click_and_a_box_find_the_object(size):
    w, h = size
    image, where = scene(size, (.4*w, .3*h, .6*w, .6*h))
    assert objects.clicked(image, w//2, .45*h).size == size
    assert overlap(objects.clicked(image, w//2, .45*h), where) > .8
    assert overlap(objects.boxed(image, .65*w, .7*h, .35*w, .2*h), where) > .8  # corners in any order


def test_of_what_is_too_small_to_tell_nothing_is_found():
    image, _ = scene((90, 60), (40, 20, 60, 40))
    assert objects.boxed(image, 5, 5, 6, 6) is None
    for size in (1, 1), (3, 3): assert objects.clicked(Image.new("RGB", size), 0, 0) is None


def test_thin_pictures_and_boxes_around_everything_do_no_harm():
    for w, h in (2000, 1), (1, 300), (30, 4000): objects.clicked(Image.new("RGB", (w, h)), w - 1, h - 1)
    image, _ = scene((90, 60), (40, 20, 60, 40))
    assert not np.asarray(objects.boxed(image, 0, 0, 89, 59)).all()  # something is around the object


def test_it_stops_where_it_is_told_to():
    image, _ = scene((90, 60), (40, 20, 60, 40))
    with Limits().hold() as limits:
        limits.stop()
        with pytest.raises(Stopped): objects.clicked(image, 50, 30)
