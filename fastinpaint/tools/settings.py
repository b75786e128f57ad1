"Settings of the tools, a class for each command"
from dataclasses import dataclass

from ..core.settings import flag, setting
from ..train.settings import Settings


@dataclass(kw_only=True)
class EvaluateSettings:
    "Write a card (metrics by mask set and share of hole) of a model, a baseline, or another system's fills"
    model: str = flag("", "sample, a saved model, a LaMa checkpoint, or a baseline: mean_colour, telea …; "
                          "several by comma, each with a folder of its own in OUT")
    texture: bool = flag(False, "Judge the model's fills with texture, as `fastinpaint fill` makes them")
    data: str = flag("sample", "Photographs: a folder, shards, or sample (its valid/), pets, imagenette")
    masks: str = flag("thin,medium,thick", "By comma: presets, folders, pool:FOLDER; with --filled, a folder")
    size: int = flag(256, "Side of the square crops in pixels")
    fills: int = flag(1, "Of each hole, by a model that generates: means, the best, and how they differ")
    seed: int = flag(42, "Of the holes, and of fills that are generated")
    limit: int = flag(0, "Photographs to take, 0 for all")
    out: str = flag("runs/evaluation", "Folder for card.json and card.md")
    export_masks: str = flag("", "Only write photographs and holes as PNG to this folder, for other systems")
    images: str = flag("", "With --filled: the photographs")
    filled: str = flag("", "Photographs that another system has filled, matched by file stem")
    invert: bool = flag(False, "With --filled: in mask files, 0 or black is the hole")
    lpips: str = flag("alex", "Networks of LPIPS, by comma: alex, vgg (twenty times as slow)")
    no_frechet: bool = flag(False, "Skip the distances between sets")
    device: str = flag("auto", "auto, cpu, cuda …")
    engine: str = flag("local", "local, or ray: every model is a task")
    address: str = flag("", "With --engine ray: address of the cluster; without: RAY_ADDRESS, else none")


@dataclass(kw_only=True)
class CompareSettings:
    "Train the rows of the ladder alike, judge and report them; started again, it keeps what is finished"
    preset: str = flag("cpu", "smoke (minutes), cpu (128 px, width 8; a night), gpu (256 px, width 64, bf16)")
    thesis: bool = flag(False, "The thesis' setting for every row: plain layers, a black hole …")
    set: str = flag("", "Settings of every row that has them, as NAME=VALUE by comma, for an ablation")
    seeds: int = flag(3, "Runs of every row")
    full: bool = flag(False, "The rows of Table 5.2 as well")
    rows: str = flag("", "Only these rows, by comma; iterate, latent_gan, latent_diffusion … too")
    data: str = flag("sample", "Photographs with train/ and valid/, as for the recipes")
    masks: str = flag("thin,medium,thick", "Mask sets of the evaluation, by comma")
    lpips: str = flag("", "Its networks by comma: alex, vgg; without: alex, with --thesis both")
    steps: int = flag(0, "Training steps of a row; 0: the preset's")
    minutes: float = flag(0., "Minutes of training steps of every row, in place of equal steps")
    prefill: bool = flag(True, "Give encoders a smooth fill, or the thesis' black hole")
    lr: str = flag("", "Highest learning rate, or several by comma, of which each row takes its best")
    autoencoder: str = flag("sample", "Where all start: sample (trained if none is bundled), a file, none, "
                                     "hf:NAME or a folder of diffusers")
    limit: int = flag(0, "Photographs to judge on, 0 for all")
    join: str = flag("", "Only set finished comparisons in these folders, by comma, side by side")
    out: str = flag("runs/compare", "Folder of the report and of all runs")
    device: str = flag("auto", "auto, cpu, cuda …")
    engine: str = flag("local", "local, or ray: every run of a row and a seed is a task")
    address: str = flag("", "With --engine ray: address of the cluster; without: RAY_ADDRESS, else none")
    wandb: str = flag("disabled", "W&B: disabled, offline, online, or auto; all runs in one group")
    project: str = setting("fastinpaint", "W&B project")


@dataclass(kw_only=True)
class DemoSettings(Settings):
    "Train `latent_control` on the sample photographs and compare it with untrained fills"
    out: str = flag("runs/demo", "Folder of the run, which goes to OUT/latent_control")
    blocks: int = flag(5, "Residual blocks of the refiner")  # more steps a minute than the published 9
    steps: int = flag(4200, "Training steps in all")


@dataclass(kw_only=True)
class GallerySettings:
    "Fill photographs by several methods and set them side by side, to be compared by eye"
    methods: str = flag("telea,patchmatch,sample,sample+texture", "Baselines and models, which take +texture")
    data: str = flag("sample", "Photographs: a folder, or a set; of one with valid/, that part")
    masks: str = flag("medium,thick", "Mask sets, in turn")
    size: int = flag(256, "Side of the central squares in pixels")
    number: int = flag(24, "Photographs, chosen by the hash of their names")
    fills: int = flag(1, "Of a network that generates, so many of each hole")
    crop: int = flag(0, "Show a square of so many pixels around the middle of the hole; 0: all")
    name: str = flag("gallery", "Of the page and its sheets")
    out: str = flag("runs/gallery", "Folder of the page and its sheets")
    device: str = flag("auto", "auto, cpu, cuda …")


@dataclass(kw_only=True)
class BenchSettings:
    "Compare the training step of `latent_control` with that of `lama_l1`, all else alike"
    width: int = flag(8, "Channels of the first stage")
    size: int = flag(256, "Side of the images in pixels")
    bs: int = flag(8, "Batch size")
    blocks: int = flag(9, "Residual blocks of the refiner")
    rounds: int = flag(5, "Times that each recipe has its turn, after one to warm up")
    steps: int = flag(4, "Training steps in a turn")
    workers: int = flag(2, "Data loading processes")
    data: str = flag("sample", "Photographs, as for the recipes")
    device: str = flag("auto", "auto, cpu, cuda …")
    bf16: bool = flag(False, "bfloat16 autocast")
    fourier: str = flag("fft", "How Fourier units compute: fft, torch or triton (products), or auto")
    convs: str = flag("torch", "How FFCs convolve: torch, triton (in one launch), or auto")
    gan: bool = flag(False, "Compare the adversarial recipes instead, and show what each loss costs")
    perceptual: str = flag("auto", "With --gan: perceptual network, as for the recipes")


@dataclass(kw_only=True)
class BenchFillSettings:
    "Fill photographs of growing sizes: time and memory should grow no faster than pixels"
    share: float = flag(.1, "Share of hole, a square in the middle")
    model: str = flag("sample", "As for `Inpainter`")
    device: str = flag("auto", "auto, cpu, cuda …")
    precision: str = flag("fp32", "fp32 or bf16")
    strategy: str = flag("auto", "auto, whole, crop, tiles or resize")
    sides: str = flag("512,1024,2048,4096", "Sides of the photographs in pixels")
    alone: int = flag(0, "Measure this side in this process and print JSON")


@dataclass(kw_only=True)
class BenchManySettings:
    "Fill many photographs of one size: together against one by one, and by Ray against this process"
    size: int = flag(256, "Side of the photographs in pixels")
    number: int = flag(8, "Photographs that are filled together, or one by one, in a round")
    rounds: int = flag(5, "Rounds of each, in turn, after one to warm up")
    texture: bool = flag(True, "Time fills with texture as well as without")
    files: int = flag(160, "Files that Ray fills without texture, and this process does; 0: none")
    model: str = flag("sample", "As for `Inpainter`")
    threads: str = flag("1,2", "CPU threads, by comma")
    device: str = flag("auto", "auto, cpu, cuda …")


@dataclass(kw_only=True)
class BenchSpeedSettings:
    "Compare a network run naively with its folded form: one image, batch 1"
    width: int = flag(8, "8: the sample model; else a LaMa of that width with random weights")
    size: int = flag(512, "Side of the image in pixels")
    blocks: int = flag(9, "Residual blocks, of random weights")
    rounds: int = flag(20, "Runs of each")
    device: str = flag("auto", "auto, cpu, cuda …")
    threads: int = flag(2, "CPU threads")
    bf16: bool = flag(False, "Time it in bfloat16 autocast too; with --against our training steps")
    convs: bool = flag(False, "Time it with FFCs that convolve in one launch, too (needs a GPU)")
    compile: bool = flag(False, "Time it by torch.compile too (needs a C++ compiler, and minutes)")
    against: str = flag("", "Instead, LaMa's saicinpainting/training/modules/ffc.py: our training steps and "
                            "fills against its generator's, on one thread and on THREADS")


@dataclass(kw_only=True)
class BenchShardsSettings:
    "Compare the supply of photographs from shards with that from their folder"
    data: str = flag("sample", "Photographs: a folder, or a set")
    count: int = flag(32, "Photographs in a shard")
    size: int = flag(256, "Side of the images in pixels")
    bs: int = flag(8, "Batch size")
    steps: int = flag(41, "Batches in a turn, of which the first is not timed")
    rounds: int = flag(5, "Turns of each, after one to warm up")
    workers: int = flag(2, "Data loading processes")
    device: str = flag("auto", "auto, cpu, cuda …")


@dataclass(kw_only=True)
class BenchScaleSettings:
    "Compare training in several processes with one on this CPU; compute what a step sends over links"
    method: str = flag("latent_control", "latent_control or lama_l1")
    processes: int = flag(2, "Processes of one thread each, against one")
    reduced: int = flag(8, "Processes for which the time on links is computed")
    width: int = flag(8, "Channels of the first stage")
    size: int = flag(128, "Side of the images in pixels")
    bs: int = flag(8, "Batch size of each process")
    blocks: int = flag(9, "Residual blocks of the refiner")
    rounds: int = flag(3, "Times that each number of processes has its turn")
    steps: int = flag(6, "Training steps in a turn, after two to warm up")


@dataclass(kw_only=True)
class CampaignSettings:
    "Measure what waits for a GPU, in pieces; started again, it goes on. Pages go to docs/results"
    piece: str = flag("", "Only these pieces, by comma")
    list: bool = flag(False, "Only say how each piece stands")
    data: str = flag("sample", "Photographs with train/ and valid/, as for the recipes")
    minutes: float = flag(8., "Most minutes of one turn of a piece")
    budget: float = flag(0., "Minutes after which no turn goes on; 0: any")
    rehearse: bool = flag(False, "The same pieces, tiny, on the CPU; pages go to OUT/results")
    out: str = flag("runs/campaign", "Folder of all that the pieces leave")


@dataclass(kw_only=True)
class DoctorSettings:
    """Say what is installed and whether it works: versions, device, weights, a short self-test

    To be pasted into bug reports. Nothing is downloaded, no server is asked; the exit code is 1 if the
    self-test fails: a fill, a training step, the kernels on the GPU or in Triton's interpreter."""
    device: str = flag("auto", "auto, cpu, cuda …")


TOOLS = dict(evaluate=EvaluateSettings, compare=CompareSettings, demo=DemoSettings, gallery=GallerySettings,
             bench=BenchSettings, bench_fill=BenchFillSettings, bench_speed=BenchSpeedSettings,
             bench_shards=BenchShardsSettings, bench_scale=BenchScaleSettings, bench_many=BenchManySettings,
             campaign=CampaignSettings, doctor=DoctorSettings)
