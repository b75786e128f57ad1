"The user's folder of what can be had again: listings of folders, shards from afar"
from dataclasses import dataclass
from os import environ
from pathlib import Path

from .settings import read, setting


@dataclass(kw_only=True)
class CacheSettings:
    "Read from FASTINPAINT_CACHE and FASTINPAINT_CACHE_GB in the environment, or from settings.ini"
    cache: str = setting("", "Folder of listings and shards; else fastinpaint in the user's cache folder")
    cache_gb: float = setting(50., "Most gigabytes (10⁹ bytes) of shards kept there")


def cache_folder() -> Path:
    "Where listings and shards are kept; it may not exist yet. Raises what `read` raises"
    home = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(read(CacheSettings).cache or home/"fastinpaint").expanduser()


def cache_limit() -> int:
    "Bytes of shards that may be kept. Raises what `read` raises"
    return int(read(CacheSettings).cache_gb*1e9)
