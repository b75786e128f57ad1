"What a bug report should say, and whether the package works here"
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from ..core.cache import cache_folder
from .settings import DoctorSettings

PARTS = dict(found="device, weights, W&B", fill="self-test: fill", train="self-test: training step",
             kernel="self-test: kernels")
TIMEOUT = 180  # seconds of a part; on a busy machine the imports alone take twenty
LAST = 30  # lines of an error


def main(settings: DoctorSettings):
    "Print the report, ready to be pasted; exit code 1 where a part of the self-test fails"
    report = ["```", *system(), *packages()]
    print(*report, sep="\n", flush=True)
    failed, processes = [], {part: started(part, settings.device) for part in PARTS}
    for part, what in PARTS.items():
        ok, lines = ended(processes[part])
        lines = [o.replace(str(Path.home()), "~") for o in lines]
        print(f"\n{what}", *lines, sep="\n  ", flush=True)
        if not ok: failed.append(what)
    print(f"\n{'failed: ' + ', '.join(failed) if failed else 'all works'}\n```")
    print("\nInto a bug report paste all of this, from ``` to ```, the command that went wrong, and all that "
          "it printed.", file=sys.stderr)
    if failed: sys.exit(1)


def system():
    "Lines on the computer; no name of it or of its user"
    memory, folder = psutil.virtual_memory(), existing(cache_folder())
    yield f"fastinpaint {version('fastinpaint')}, Python {platform.python_version()}, {platform.platform()}"
    yield f"{os.cpu_count()} CPUs, memory {gb(memory.available)} free of {gb(memory.total)}"
    for what, path in ("here", Path.cwd()), ("for the cache", folder):
        usage = shutil.disk_usage(path)
        yield f"disk {what}: {gb(usage.free)} free of {gb(usage.total)}"


def existing(path):
    "`path`, or the nearest folder above it that exists"
    return next(o for o in (path, *path.parents) if o.exists())


def gb(n): return f"{n/1e9:.1f} GB"


def packages():
    "Lines on the packages that this one needs, and on those of its extras"
    needed = [Requirement(o) for o in requires("fastinpaint")]
    yield "\npackages"
    yield from (f"  {found(o)}" for o in needed if not o.marker or o.marker.evaluate({"extra": ""}))
    yield "\nextras"
    for extra in metadata("fastinpaint").get_all("Provides-Extra"):
        of_it = [o for o in needed if o.marker and not o.marker.evaluate({"extra": ""})
                 and o.marker.evaluate({"extra": extra}) and o.name != "fastinpaint"]
        yield f"  {extra:10} {', '.join(map(found, of_it))}"


def found(requirement):
    "A package's name and version, or what is wrong with it"
    name = requirement.name
    try: here = version(name)
    except PackageNotFoundError: return f"{name} is missing"
    fits = requirement.specifier.contains(here, prereleases=True)
    return f"{name} {here}" + ("" if fits else f", but {requirement.specifier} is needed")


def started(part, device):
    "The process of a part of `fastinpaint.tools.selftest`: its crash or hang leaves the others alone"
    command = [sys.executable, "-m", "fastinpaint.tools.selftest", part, device]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            errors="replace")


def ended(process):
    "Whether a part worked, and the lines that it printed; of one that did not, the end of its errors too"
    try: out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return False, [*out.splitlines(), f"no end within {TIMEOUT} s", *err.splitlines()[-LAST:]]
    if not process.returncode: return True, out.splitlines()
    return False, [*out.splitlines(), f"exit code {process.returncode}", *err.splitlines()[-LAST:]]
