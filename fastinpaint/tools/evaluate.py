"Judge a model, a baseline, or a folder that another system has filled, by one protocol"
from fastinpaint.all import *
from fastinpaint.core.device import choose_device
from fastinpaint.judge.baselines import BASELINES


@call_parse
def main(
    model: str = "",            # sample, a saved model, a LaMa checkpoint, or a baseline: mean_colour, smooth_fill, telea …
    data: str = "sample",       # Photographs: a folder, or sample (its valid/), pets, imagenette
    masks: str = "thin,medium,thick",  # Mask sets by comma: presets, folders, pool:FOLDER; with --filled, one folder
    size: int = 256,            # Side of the square crops in pixels
    seed: int = 42,             # Of the holes
    limit: int = 0,             # Photographs to take, 0 for all
    out: str = "runs/evaluation",  # Folder for card.json and card.md
    export_masks: str = "",     # Write photographs and holes as PNG to this folder, for other systems, and stop
    images: str = "",           # With --filled: the photographs
    filled: str = "",           # Folder of photographs that another system has filled, matched by file stem
    invert: store_true = False, # With --filled: in mask files, 0 or black is the hole
    no_frechet: store_true = False,  # Skip the distances between sets
    device: str = "auto",       # auto, cpu, cuda …
):
    "Writes an evaluation card: hole L1, PSNR, SSIM, LPIPS and distances between sets, by mask set and by share of hole"
    sets = masks.split(",")
    if filled: card = evaluate_files(images, masks, filled, invert, not no_frechet)
    else:
        folder = named_data(data)
        if (folder/"valid").is_dir(): folder = folder/"valid"
        if export_masks:
            count = export_photos(folder, export_masks, sets, size, seed, limit or None)
            print(f"{count} photographs with holes in {export_masks}")
            return None
        if not model: raise SystemExit(f"--model takes a file or one of {', '.join(BASELINES)}; --filled judges a folder")
        card = evaluate(model, folder, sets, size, seed, choose_device(device), limit or None, not no_frechet)
    for path in card.save(out): print(path)
    print("\n" + card.markdown().split("```")[0])
    return card
