"Films: every frame filled by one mask, sound as it was"
from collections import deque
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..core.errors import InputError, MissingFile, MissingPackage
from ..core.files import replacing
from .hole import read_opacity

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # suffix → FFmpeg's name
CRF = "16"  # of H.264, from 0, lossless, to 51; at 18 differences begin to be seen


def fill_video(inpainter, video, mask, out, progress=None, invert=False, **options):
    """Fill every frame of the film `video` by `mask`, to the file `out`; returns its path.

    Frames become H.264, so known pixels stay as near as that keeps them; times and sound stay as they are.
    `options` are those of `Inpainter.many`; texture is off unless asked for, as it is made for each frame
    alone, and would flicker. `progress` wraps the iterable of frames and takes `total`, None
    where that is unknown. Raises MissingPackage without PyAV, MissingFile, InputError for what is no film."""
    av, out = _pyav(), Path(out)
    if out.suffix.lower() not in CONTAINERS:
        raise InputError(f"{out}: a film is written to a file that ends in {', '.join(CONTAINERS)}")
    if not Path(video).is_file(): raise MissingFile(f"no such file: {Path(video).absolute()}")
    opacity = read_opacity(mask, invert) if mask is not None else None
    options = dict(texture=False) | options
    with ExitStack() as files:
        target = files.enter_context(replacing(out))
        try:
            source = files.enter_context(av.open(str(video)))
            target = files.enter_context(av.open(target, "w", format=CONTAINERS[out.suffix.lower()]))
            film = Film(av, source, target)
            fills = inpainter.many(((frame, opacity) for frame in film.frames()), **options)
            total = source.streams.video[0].frames or None
            for fill in progress(fills, total=total) if progress else fills: film.write(np.asarray(fill))
            film.finish()
        except (av.error.FFmpegError, IndexError) as e:
            raise InputError(f"{video} cannot be read as a film, or written to {out.suffix}: {e}") from e
    return out


class Film:
    "Frames of the film `source`, and the film `target` that they are written to again, with all sound"
    def __init__(self, av, source, target):
        self.av, self.source, self.target = av, source, target
        self.video = source.streams.video[0]
        self.video.thread_type = "AUTO"
        self.sounds = {o: target.add_stream_from_template(o) for o in source.streams.audio}
        self.times = deque()  # of frames that are being filled
        self.stream, self.early = None, []  # sound from before there is a stream of frames

    def frames(self):
        "Yields frames, uint8 `[H, W, 3]`, upright; on the way sound goes to the target"
        for packet in self.source.demux(self.video, *self.sounds):
            if packet.stream in self.sounds:
                if packet.dts is None: continue  # it ends the stream
                packet.stream = self.sounds[packet.stream]
                if self.stream is None: self.early.append(packet)
                else: self.target.mux(packet)
                continue
            for frame in packet.decode():
                self.times.append(frame.pts)
                yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation/90))

    def write(self, pixels):
        "Encode a frame, that follows the one before in time"
        if self.stream is None:
            self.stream = self._stream(pixels)
            self.target.mux(self.early)  # now that the target's header can be written
        frame = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format=self.stream.pix_fmt, dst_colorspace=self._space())
        frame.pts, frame.time_base = self.times.popleft(), self.video.time_base
        self.target.mux(self.stream.encode(frame))

    def finish(self):
        if self.stream is None: raise IndexError("it has no frames")
        self.target.mux(self.stream.encode())

    def _stream(self, pixels):
        rate = self.video.average_rate or Fraction(25)
        stream = self.target.add_stream("libx264", rate=rate, options={"crf": CRF})
        stream.height, stream.width = pixels.shape[:2]
        # colours at half the resolution, as players expect, need even sides
        stream.pix_fmt = "yuv444p" if stream.height % 2 or stream.width % 2 else "yuv420p"
        stream.codec_context.time_base = self.video.time_base
        for name in "colorspace", "color_range", "color_primaries", "color_trc":
            setattr(stream.codec_context, name, getattr(self.video.codec_context, name))
        return stream

    def _space(self):
        "In which the source has its colours, where it says so"
        known = self.video.codec_context.colorspace
        return known if known in (1, 4, 5, 6, 7) else None  # those that FFmpeg converts


def _pyav():
    try:
        import av
    except ImportError as e:
        raise MissingPackage("films need PyAV: pip install 'fastinpaint[video]'") from e
    return av
