"""An object in a photograph, found around a click or in a box, without a network.

GrabCut (Rother, Kolmogorov & Blake 2004) as OpenCV has it: two mixtures of colours, one of the object and
one of what is around it, and the cut between them that follows edges."""
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageFilter

from ..core.limits import go_on

SEEN = 320        # longest side in pixels of what is looked at: a second at most
ROUNDS = 3        # of colours and cuts; with more, small objects vanish
REACH = .35       # of the longest side, how far from a click its object may go
SURE = .04        # and how far all belongs to it
FEW = 16          # pixels from which colours are learnt
GROWN = 5         # pixels of the square by which what was found grows: edges are soft


def available():
    "Whether OpenCV is installed"
    return find_spec("cv2") is not None


def clicked(image, x, y):
    "The object of the RGB `image` at the pixel (x, y): greyscale image, white where it is, or None"
    pixels, scale = seen(image)
    x, y = (min(int(o/scale), n - 1) for o, n in zip((x, y), pixels.shape[1::-1], strict=True))
    rows, columns = np.ogrid[:pixels.shape[0], :pixels.shape[1]]
    away = np.hypot(columns - x, rows - y)/max(pixels.shape)
    found = cut(pixels, away <= REACH, away <= SURE)
    import cv2
    _, parts = cv2.connectedComponents(found.astype(np.uint8))
    return grown(found & (parts == parts[y, x]), image.size)


def boxed(image, x0, y0, x1, y1):
    "As `clicked`, of the object that fills most of the box between two corners"
    pixels, scale = seen(image)
    inside = np.zeros(pixels.shape[:2], bool)
    left, right, top, bottom = (int(o/scale) for o in (*sorted((x0, x1)), *sorted((y0, y1))))
    inside[top:bottom + 1, left:right + 1] = True
    return grown(cut(pixels, inside), image.size)


def seen(image):
    "Pixels of a smaller `image`, and how much smaller it is"
    small = image.copy()
    small.thumbnail((SEEN, SEEN))
    return np.asarray(small), max(image.size)/max(small.size)


def cut(pixels, maybe, sure=False):
    "Bool `[h, w]`, where the object is: nowhere outside of `maybe`, everywhere in `sure`"
    import cv2
    go_on()
    labels = np.where(sure, cv2.GC_FGD, np.where(maybe, cv2.GC_PR_FGD, cv2.GC_BGD)).astype(np.uint8)
    if maybe.all(): labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD  # something has to be around it
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    if min(found.sum(), (~found).sum()) < FEW: return np.zeros_like(found)
    cv2.setRNGSeed(0)
    colours = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(pixels, labels, None, *colours, ROUNDS, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def grown(found, size):
    if not found.any(): return None
    small = Image.fromarray(found).convert("L").filter(ImageFilter.MaxFilter(GROWN))
    return small.resize(size, Image.Resampling.BILINEAR)
