"What has to be fetched, with an answer within seconds where there is no network"
import http.client
import threading
import urllib.request
from functools import cache
from pathlib import Path

from .errors import MissingFile, Unreachable

TIMEOUT = 4  # seconds until a silent server counts as out of reach


def unreachable(url: str) -> str | None:
    "Why `url` does not answer within `TIMEOUT`, or None"
    why = [f"no answer in {TIMEOUT} s"]

    def ask():
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT): why[0] = None
        except (OSError, http.client.HTTPException) as e:
            # the socket's own time-out may come first
            if not isinstance(getattr(e, "reason", e), TimeoutError): why[0] = str(e) or type(e).__name__
    # a thread, as the time-out of a socket covers neither the name look-up nor further addresses
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return why[0]


def hub_file(url: str) -> Path:
    "Where torch hub keeps the file of `url`"
    import torch  # takes seconds
    return Path(torch.hub.get_dir())/"checkpoints"/url.rpartition("/")[2]


def fetch(url: str) -> Path:
    """The file of `url` in torch hub's cache, downloaded if it is not there.

    Its name ends in the start of its SHA-256. Raises Unreachable where it cannot be had."""
    path = hub_file(url)
    if not path.exists() and (why := _download(url, path)):
        raise Unreachable(f"{url} cannot be downloaded ({why})")
    return path


@cache  # one try a process: who is offline waits once, not once a metric and epoch
def _download(url, path):
    "Download `url` to `path`, whole or not at all; returns what went wrong, or None"
    from torch.hub import download_url_to_file
    if why := unreachable(url): return why
    path.parent.mkdir(parents=True, exist_ok=True)
    try: download_url_to_file(url, path, path.stem.rpartition("-")[2], progress=False)
    except (OSError, http.client.HTTPException) as e: return str(e) or type(e).__name__
    except RuntimeError as e: return f"what came has another SHA-256: {e}"
    return None


def hub_folder(name: str, patterns: list[str]) -> Path:
    """The folder in the Hub's cache of the repository `name`, its files of `patterns` downloaded if need be.

    Raises, within seconds, Unreachable where the Hub is out of reach and they were never downloaded, and
    MissingFile where it has no such repository, or none that one may read."""
    from huggingface_hub import constants, errors, snapshot_download
    why = unreachable(constants.ENDPOINT)
    try: return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=bool(why)))
    except errors.HFValidationError as e:
        raise MissingFile(f"no folder or file {name}, and no name on the Hub, which is org/name") from e
    except errors.LocalEntryNotFoundError as e:
        raise Unreachable(f"{name} has not been downloaded before, and {constants.ENDPOINT} is out of reach "
                          f"({why or 'it broke off'}): give a folder of its files instead") from e
    except errors.HfHubHTTPError as e:
        raise MissingFile(f"no {name} on {constants.ENDPOINT}, or no right to read it; for a private one: "
                          "hf auth login") from e
