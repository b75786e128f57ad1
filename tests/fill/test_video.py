import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from fastinpaint.fill.inpainter import Inpainter
from fastinpaint.fill.video import fill_video

av = pytest.importorskip("av")

H, W, N = 64, 96, 10


@pytest.fixture
def inpainter(tiny_lama): return Inpainter(tiny_lama().eval(), "cpu")


def scene():
    "Frames of a coloured picture that moves to the left"
    small = np.random.default_rng(0).integers(0, 256, (6, 14, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((2*W, H), Image.Resampling.BICUBIC))
    return [np.ascontiguousarray(wide[:, 4*i:4*i + W]) for i in range(N)]


def make(path, space=None, sound=True, frames=None, rotation=0):
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=Fraction(25), options={"crf": "5"})
        frames = scene() if frames is None else frames
        (video.height, video.width), video.pix_fmt = frames[0].shape[:2], "yuv420p"
        if space: video.codec_context.colorspace = space
        if sound:
            audio = film.add_stream("aac", rate=8000)
            wave = np.sin(np.arange(8000*N//25)*.3).astype(np.float32)[None]
            noise = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            noise.sample_rate, noise.pts = 8000, 0
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p",
                                                                                  dst_colorspace=space)
            film.mux(video.encode(frame))
        film.mux(video.encode())
        if sound:
            film.mux(audio.encode(noise))
            film.mux(audio.encode())
    return path


def read(path):
    "Frames, their times, and the bytes of the sound"
    with av.open(str(path)) as film:
        found = [(f.to_ndarray(format="rgb24"), float(f.time)) for f in film.decode(video=0)]
    with av.open(str(path)) as film:
        sound = [bytes(p) for p in film.demux(audio=0)] if film.streams.audio else []
    return [o for o, _ in found], [t for _, t in found], [o for o in sound if o]


def hole():
    mask = np.zeros((H, W), bool)
    mask[20:40, 30:60] = True
    return mask


@pytest.mark.parametrize("space", [None, 1, 5], ids=["unsaid", "bt709", "bt601"])
def test_every_frame_is_filled_and_all_else_stays(inpainter, tmp_path, space):
    film, seen = make(tmp_path/"a.mp4", space), []
    Image.fromarray(hole()).save(tmp_path/"mask.png")
    def progress(frames, total):
        seen.append(total)
        return frames
    out = fill_video(inpainter, film, tmp_path/"mask.png", tmp_path/"b.mp4", progress)
    assert out == tmp_path/"b.mp4" and seen == [N]
    (before, times, sound), (after, again, kept) = read(film), read(out)
    assert again == times and kept == sound and len(sound) > 1 and len(after) == N
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        difference = np.abs(a.astype(int) - b).mean(-1)
        assert difference[~hole()].mean() < 4, i
        filled = np.asarray(inpainter(a, hole(), texture=False)).astype(int)
        assert np.abs(filled - b)[hole()].mean() < 6 < difference[hole()].mean()


def test_a_phones_film_is_turned_upright(inpainter, tmp_path):
    film = make(tmp_path/"a.mp4", sound=False)
    data, one, none, minus = film.read_bytes(), b"\0\1\0\0", b"\0"*4, b"\xff\xff\0\0"
    before, track, after = data.partition(b"tkhd")
    upright = one + none*3 + one
    assert upright in after
    film.write_bytes(before + track + after.replace(upright, none + one + none + minus + none, 1))
    frames, *_ = read(fill_video(inpainter, film, hole().T, tmp_path/"b.mp4"))
    turned = np.rot90(scene()[0], -1)  # clockwise, as players do
    assert frames[0].shape == turned.shape
    known = ~hole().T
    assert np.abs(frames[0].astype(int) - turned)[known].mean() < 6


def test_odd_sides_and_no_sound(inpainter, tmp_path):
    film = make(tmp_path/"a.mkv", sound=False)
    frames, _, sound = read(fill_video(inpainter, film, hole(), tmp_path/"b.mkv", extend=(3, 0, 0, 1)))
    assert frames[0].shape == (H + 1, W + 3, 3) and not sound


def test_a_failure_leaves_nothing(inpainter, tmp_path):
    film = make(tmp_path/"a.mp4")
    with pytest.raises(ValueError, match="its mask 48x64"):
        fill_video(inpainter, film, hole()[:, ::2], tmp_path/"b.mp4")
    with pytest.raises(ValueError, match="ends in .mp4"):
        fill_video(inpainter, film, hole(), tmp_path/"b.gif")
    (tmp_path/"text.mp4").write_text("no film")
    with pytest.raises(ValueError, match="text.mp4 cannot be read as a film"):
        fill_video(inpainter, tmp_path/"text.mp4", hole(), tmp_path/"b.mp4")
    with pytest.raises(FileNotFoundError, match="none.mp4"):
        fill_video(inpainter, tmp_path/"none.mp4", hole(), tmp_path/"b.mp4")
    assert sorted(o.name for o in tmp_path.iterdir()) == ["a.mp4", "text.mp4"]


def test_without_pyav_it_is_named(inpainter, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"fastinpaint\[video\]"):
        fill_video(inpainter, tmp_path/"a.mp4", hole(), tmp_path/"b.mp4")
