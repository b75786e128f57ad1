"What waits for a GPU, piece by piece, and how each is rehearsed on a CPU"
import re
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Piece:
    """A command with its flags on a GPU and in a rehearsal, which leaves it out without.

    In them HERE is the piece's folder, ALL that of all pieces, DATA the photographs. `page` is the page of
    its result: the file `result`, or what it prints. With `resumes`, a turn goes on where the last one was
    interrupted; `checkpoint` is the file that --resume then needs."""
    name: str
    page: str
    command: str
    flags: str
    rehearsal: str = ""
    result: str = ""
    resumes: bool = False
    checkpoint: str = ""

    def argv(self, rehearsed, places):
        flags = self.rehearsal if rehearsed else self.flags
        words = [sys.executable, "-m", *self.command.split(), *flags.split()]
        checkpoint = placed(self.checkpoint, places)
        return [placed(word, places) for word in words] + ["--resume"]*Path(checkpoint).is_file()


def placed(text, places):
    "`text` with each of the words `places` (word → path) replaced"
    return re.sub("|".join(places), lambda found: str(places[found[0]]), text)


TESTS, KERNELS, BENCH = "pytest -q --disable-warnings", "fastinpaint.kernels.bench", "fastinpaint bench"
SPEED, FILL, COMPARE = "fastinpaint bench_speed", "fastinpaint bench_fill", "fastinpaint compare"
STEP = "--data DATA --size 256 --bs 16 --steps 20"
TINY_STEP = "--data DATA --size 32 --bs 2 --width 4 --blocks 1 --rounds 1 --steps 1 --workers 0 --device cpu"
TINY_SPEED = "--size 32 --width 4 --blocks 1 --rounds 1 --device cpu"
LADDER = "--preset gpu --data DATA --out HERE --seeds 1"
TINY_LADDER = ("--preset smoke --data DATA --out HERE --seeds 1 --rows lama_l1,latent --masks thick "
               "--limit 2 --autoencoder none --device cpu --set size=32,width=4,bs=2,epochs=1,steps=1")
# epochs of well under a minute: a run goes on from its last whole epoch
SAMPLE = "--data DATA --out HERE --overwrite --size 256 --bs 32 --steps 100000 --epochs 500"
TINY_SAMPLE = ("--data DATA --out HERE --overwrite --size 32 --bs 2 --steps 2 --epochs 2 --width 4 "
               "--blocks 1 --workers 0 --autoencoder none --device cpu")
CARD = "--model ALL/sample/delta/model.safetensors --data DATA --out HERE"

PIECES = [
    Piece("kernel-tests", "kernels", TESTS, "tests/kernels tests/data/test_ahead.py",
          "tests/kernels/test_bench.py -k bytes"),
    Piece("kernels-8-256", "kernels", KERNELS, "--width 8 --size 256 --budget .1 --out HERE",
          "--quick --width 4 --size 32 --budget 0 --device cpu --out HERE"),
    *[Piece(f"kernels-{w}-{size}", "kernels", KERNELS, f"--width {w} --size {size} --budget .1 --out HERE")
      for w, size in ((8, 512), (64, 256), (64, 512))],
    Piece("step-8", "steps", BENCH, f"{STEP} --width 8", TINY_STEP),
    Piece("step-8-bf16", "steps", BENCH, f"{STEP} --width 8 --bf16"),
    Piece("step-8-products", "steps", BENCH, f"{STEP} --width 8 --fourier auto"),
    Piece("step-64", "steps", BENCH, f"{STEP} --width 64"),
    Piece("step-64-bf16", "steps", BENCH, f"{STEP} --width 64 --bf16"),
    Piece("step-64-products", "steps", BENCH, f"{STEP} --width 64 --fourier auto"),
    Piece("step-8-launch", "steps", BENCH, f"{STEP} --width 8 --fourier auto --convs auto"),
    Piece("step-64-launch", "steps", BENCH, f"{STEP} --width 64 --fourier auto --convs auto"),
    Piece("step-64-launch-bf16", "steps", BENCH, f"{STEP} --width 64 --bf16 --fourier auto --convs auto"),
    Piece("step-64-products-bf16", "steps", BENCH, f"{STEP} --width 64 --bf16 --fourier auto"),
    Piece("step-gan-64-bf16", "steps", BENCH, f"{STEP} --width 64 --bf16 --gan"),
    Piece("speed-8", "fill", SPEED, "--width 8 --bf16 --convs --compile", TINY_SPEED),
    Piece("speed-64", "fill", SPEED, "--width 64 --bf16 --convs --compile"),
    Piece("fill", "fill", FILL, "--device cuda", "--alone 64 --device cpu"),
    Piece("fill-bf16", "fill", FILL, "--device cuda --precision bf16"),
    Piece("sample", "sample", "fastinpaint train delta", SAMPLE, TINY_SAMPLE, "HERE/delta/settings.json",
          True, "HERE/delta/checkpoint.pt"),
    Piece("card", "sample", "fastinpaint evaluate", f"{CARD} --lpips alex,vgg",
          f"{CARD} --size 32 --masks thick --limit 2 --device cpu", "HERE/card.md"),
    # Table 5.1 has width 8
    Piece("ladder-thesis", "ladder", COMPARE, f"{LADDER} --thesis --set width=8", f"{TINY_LADDER} --thesis",
          "HERE/report.md", True),
    Piece("ladder-ours", "ladder", COMPARE, f"{LADDER} --set width=8", TINY_LADDER, "HERE/report.md", True),
    Piece("ladder-joined", "ladder", COMPARE, *["--join ALL/ladder-thesis,ALL/ladder-ours --out HERE"]*2,
          "HERE/report.md"),
    Piece("ladder-64", "ladder", COMPARE, LADDER, "", "HERE/report.md", True),
]
