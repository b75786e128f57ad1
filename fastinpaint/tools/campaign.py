"Measures what waits for a GPU: each piece runs in turns, is kept when it is done, and comes to a page"
import json
import platform
import re
import shlex
import signal
import subprocess
import time
from datetime import date
from importlib.metadata import distributions
from math import inf
from pathlib import Path

import torch

from fastinpaint.core.errors import InputError
from fastinpaint.core.files import replacing

from .pieces import PIECES, TESTS, placed
from .settings import CampaignSettings

PAGES = dict(kernels="The kernels", steps="Training steps", fill="Filling", sample="A model trained for long",
             ladder="The ladder")
VENDORS = {"nvidia", "amd", "geforce", "tesla", "instinct"}
PACKAGES = "fastinpaint", "torch", "triton", "timm", "fastai"
SAVING = 1/8  # of a turn: an interrupted run has that long to save


def device_name(rehearse):
    "The GPU's, or cpu in a rehearsal. Raises InputError where there is no GPU to measure"
    if rehearse: return "cpu"
    if torch.cuda.is_available(): return torch.cuda.get_device_name()
    raise InputError("no GPU to measure: torch sees none; --rehearse runs the same pieces, tiny, on the CPU")


def slug(device):
    "A short name for files: h200 of NVIDIA H200, rtx-4090 of NVIDIA GeForce RTX 4090"
    words = [word for word in re.findall(r"[a-z0-9]+", device.lower()) if word not in VENDORS]
    last = next((i for i, word in enumerate(words) if re.search(r"\d", word)), len(words))
    return "-".join(words[:last + 1])


def run(argv, folder, seconds):
    "Exit code of `argv`, whose output goes to `folder`; None where it was interrupted after `seconds`"
    with (folder/"stdout.txt").open("w") as out, (folder/"stderr.txt").open("a") as err:
        # in a session of its own, Ctrl-C reaches it once, through us; a shell's background jobs ignore it
        process = subprocess.Popen(argv, stdout=out, stderr=err, start_new_session=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        try: return process.wait(seconds*(1 - SAVING))
        except subprocess.TimeoutExpired: return None
        finally: _end(process, seconds*SAVING)


def _end(process, seconds):
    if process.poll() is not None: return
    process.send_signal(signal.SIGINT)
    try: process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Campaign:
    "The pieces on one device; how they stand is in `campaign.json` of its folder"
    def __init__(self, settings, device):
        self.settings, self.device, self.slug = settings, device, slug(device)
        self.folder = Path(settings.out)/self.slug
        self.pages = self.folder/"results" if settings.rehearse else Path("docs/results")
        self.file = self.folder/"campaign.json"
        self.states = json.loads(self.file.read_text()) if self.file.is_file() else {}
        self.pieces = [p for p in PIECES if (p.rehearsal or not settings.rehearse)
                       and (p.command != TESTS or Path("tests/kernels").is_dir())]

    def places(self, piece):
        return dict(HERE=self.folder/piece.name, ALL=self.folder, DATA=self.settings.data)

    def argv(self, piece): return piece.argv(self.settings.rehearse, self.places(piece))

    def command(self, piece):
        "What one would type"
        return shlex.join(["python", *self.argv(piece)[1:]]).removesuffix(" --resume")

    def done(self, piece):
        "Whether the same command has been done"
        marker = self.marker(piece)
        return marker.is_file() and marker.read_text() == self.command(piece)

    def marker(self, piece): return self.folder/piece.name/"done"

    def turn(self, piece, minutes):
        "Run `piece` for at most so many minutes; note how it stands, and write the pages anew"
        folder, start, command = self.folder/piece.name, time.monotonic(), self.command(piece)
        folder.mkdir(parents=True, exist_ok=True)
        code = run(self.argv(piece), folder, 60*minutes)
        if code == 0: self.marker(piece).write_text(command)
        # what cannot be resumed may have been cut short by the budget
        goes_on = code is None and (piece.resumes or minutes < self.settings.minutes)
        state = self.states.setdefault(piece.name, dict(turns=0, seconds=0.))
        state |= dict(state="done" if code == 0 else "unfinished" if goes_on else "failed", command=command,
                      turns=state["turns"] + 1, seconds=state["seconds"] + time.monotonic() - start,
                      date=str(date.today()))
        with replacing(self.file) as f: f.write(json.dumps(self.states, indent=1).encode())
        self.write_pages()
        print(f"{piece.name}: {self.how(piece)}", flush=True)
        return state["state"]

    def how(self, piece):
        "How a piece stands"
        state = self.states.get(piece.name)
        if state is None: return "waiting"
        turns = f"{state['turns']} turn{'s'*(state['turns'] > 1)}"
        return f"{state['state']}, {turns}, {state['seconds']/60:.1f} minutes"

    def write_pages(self):
        "Each page with the pieces that have had a turn"
        for page, title in PAGES.items():
            begun = [p for p in self.pieces if p.page == page and p.name in self.states]
            if not begun: continue
            day = max(self.states[p.name]["date"] for p in begun)
            by = "fastinpaint campaign" + " --rehearse"*self.settings.rehearse
            about = f"Measured on {self.device} by `{by}`, {day}: {versions()}."
            text = "\n\n".join([f"# {title}: {self.device}", about, *map(self.section, begun)])
            with replacing(self.pages/f"{page}-{self.slug}.md") as f: f.write(f"{text}\n".encode())

    def section(self, piece):
        "A piece on its page: its command, and what came of it where it is done"
        state, places = self.states[piece.name], self.places(piece)
        head = f"## {piece.name}: {self.how(piece)}\n\n`{state['command']}`"
        if state["state"] != "done": return head
        file = Path(placed(piece.result or "HERE/stdout.txt", places))
        return f"{head}\n\n{as_section(file.read_text(), file.suffix)}"


def as_section(text, suffix):
    "Markdown two levels down, without pictures; other text as it is printed"
    if suffix != ".md": return f"```text\n{text.strip()}\n```"
    return re.sub(r"^#", "###", re.sub(r"^!\[.*\n", "", text, flags=re.M), flags=re.M).strip()


def versions():
    found = {p: next((d.version for d in distributions(name=p)), None) for p in PACKAGES}
    found |= dict(CUDA=torch.version.cuda, Python=platform.python_version())
    return ", ".join(f"{k} {v}" for k, v in found.items() if v)


def main(settings: CampaignSettings):
    "Run the pieces that are not done, in turns, and write their pages; raises InputError if one has failed"
    s, campaign = settings, Campaign(settings, device_name(settings.rehearse))
    names = {piece.name: piece for piece in campaign.pieces}
    if unknown := [name for name in s.piece.split(",") if name and name not in names]:
        raise InputError(f"no pieces {', '.join(unknown)}; there are {', '.join(names)}")
    pieces = [names[name] for name in s.piece.split(",")] if s.piece else campaign.pieces
    if s.list: return print(*(f"{piece.name}: {campaign.how(piece)}" for piece in pieces), sep="\n")
    end, failed = time.monotonic() + (60*s.budget or inf), []
    for piece in pieces:
        state = "unfinished"
        while state == "unfinished" and not campaign.done(piece):
            left = (end - time.monotonic())/60
            if left <= 0: return print("the budget is used up; the same command goes on")
            state = campaign.turn(piece, min(s.minutes, left))
        if state == "failed": failed.append(piece.name)
    print(f"pages: {campaign.pages}")
    if failed:
        raise InputError(f"failed: {', '.join(failed)}; {campaign.folder}/PIECE has what they wrote")
