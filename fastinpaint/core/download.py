"What has to be fetched, with an answer within seconds where there is no network"
import threading
import urllib.request


def unreachable(url: str, seconds: float = 4) -> str | None:
    "Why `url` cannot be had, or None; in a thread, because looking up a name has no timeout of its own"
    why = [f"no answer in {seconds} s"]

    def ask():
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                why[0] = None
        except OSError as e: why[0] = str(e)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return why[0]
