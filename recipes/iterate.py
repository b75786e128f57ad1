"Table A.1's other half: one refiner, several times"
from dataclasses import dataclass
from functools import partial

import fastinpaint as fi


@dataclass(kw_only=True)
class Settings(fi.LatentSettings):
    blocks: int = fi.flag(3, "Residual blocks, which every iteration shares")
    iterations: int = fi.flag(3, "Times that the refiner is applied")
    iterates: float = fi.flag(.8, "Weight of each iterate as a share of the next one's; 0: the last alone")


@fi.program
def main(settings: Settings):
    "Thesis, appendix A: latent_control whose refiner shares its weights over iterations, as in RAFT"
    s, model = settings, partial(fi.lama, control="mask", delta=True, iterations=settings.iterations)
    cbs = [fi.FreezeSchedule(), fi.LatentLoss(known=s.known, distance=s.distance, iterates=s.iterates)]
    return fi.train_recipe("iterate", settings, model, cbs)
