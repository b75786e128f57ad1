
import numpy as np
import pytest
import torch
from PIL import Image

from fastinpaint.judge import distances
from fastinpaint.judge.baselines import mean_colour, smooth_fill
from fastinpaint.judge.evaluate import evaluate, evaluate_files
from fastinpaint.judge.metrics import LPIPS, PSNR, HoleL1
from fastinpaint.judge.protocol import export_photos, holes
from fastinpaint.models.load import save_model
from fastinpaint.models.net import composite

QUICK = dict(size=32, frechet=False)


def tensors(item):
    image = torch.from_numpy(item.image.copy()).permute(2, 0, 1)[None]/255
    return image, torch.from_numpy(item.hole)[None, None].float()


def values(card, group="all"): return {k: v["value"] for k, v in card.metrics[group].items()}


def test_a_card_holds_the_metrics_of_the_composites(photos):
    card = evaluate(mean_colour, photos, ["thick", "center"], **QUICK)
    for name in "thick", "center":
        metrics, per_image = [HoleL1(), PSNR()], 0
        for item in holes(photos, [name], 32):
            image, mask = tensors(item)
            pred = (mean_colour(image*(1 - mask), mask)*255).round()/255
            for m in metrics: m.update(pred, image, mask)
            per_image += 1
        assert per_image == 8
        for m in metrics: assert card.metrics[name][m.name]["value"] == pytest.approx(m.value, rel=1e-5)
    found = values(card)
    assert found["psnr"] == pytest.approx(np.mean([values(card, n)["psnr"] for n in ("thick", "center")]))
    assert {"reading", "filling", "psnr"} < set(card.seconds) and "distances" not in card.seconds
    assert sum(g["n"]["value"] for g in card.by_area.values()) == 16
    assert card.drift > 0 and card.data["images"] == 8


def test_holes_depend_on_name_set_and_seed_alone(photos):
    def drawn(masks, seed=42): return [i.hole for i in holes(photos, masks, 32, seed)]
    first = drawn(["thin", "thick"])
    assert all(np.array_equal(a, b) for a, b in zip(first[8:], drawn("thick"), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first[:8], drawn("thin", 43), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first[:8], first[8:], strict=True))


def test_a_fill_sees_nothing_of_what_the_hole_hides(photos):
    def fill(image, mask):
        assert not (image*mask).any() and image.any()
        return image
    evaluate(fill, photos, "thick", **QUICK)


def test_a_better_fill_has_the_better_card(photos):
    mean, smooth = (values(evaluate(f, photos, "center", **QUICK), "center")
                    for f in (mean_colour, smooth_fill))
    assert smooth["hole_l1"] < mean["hole_l1"] and smooth["psnr"] > mean["psnr"]


def test_a_model_its_file_and_its_learner_are_judged_alike(photos, tiny_learner, tmp_path):
    learn = tiny_learner(control="mask")
    path = save_model(learn, tmp_path/"model.safetensors")
    cards = [evaluate(m, photos, "thick", **QUICK) for m in (learn, learn.model, path)]
    assert values(cards[0], "thick") == values(cards[1], "thick") == values(cards[2], "thick")
    assert evaluate("sample", photos, "thick", limit=1, **QUICK).model["name"] == "sample"
    assert len(cards[2].model["sha256"]) == 64 and cards[1].model["parameters"] > 0


def test_exported_holes_filled_elsewhere_give_the_same_numbers(photos, tmp_path):
    assert export_photos(photos, tmp_path, ["thick"], 32) == 8
    images, masks, filled = tmp_path/"thick/images", tmp_path/"thick/masks", tmp_path/"filled"
    filled.mkdir()
    for item in holes(photos, "thick", 32):
        image, mask = tensors(item)
        pred = (smooth_fill(image*(1 - mask), mask)[0]*255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pred).save(filled/f"{item.name}")
    direct = evaluate(smooth_fill, photos, "thick", **QUICK)
    by_file = evaluate_files(images, masks, filled, frechet=False)
    assert values(by_file, "masks") == values(direct, "thick")


def test_distances_between_sets(photos):
    originals = [tensors(item)[0] for item in holes(photos, "center", 32)]
    card = evaluate(mean_colour, photos, "center", size=32)
    perfect = evaluate(lambda image, mask: originals.pop(0), photos, "center", size=32)
    least, found = perfect.metrics["center"], card.metrics["center"]
    assert least["fd_efflite0"]["value"] < 1e-3 < found["fd_efflite0"]["value"]
    assert least["kid_efflite0"]["value"] < found["kid_efflite0"]["value"]
    assert any("prefer KID" in note for note in card.notes)
    (halves,) = (note for note in card.notes if "4 against 4" in note)
    assert float(halves.split()[-1][:-1]) > 1e-3


def test_distances_of_all_sets_and_by_share_of_hole_say_their_number(photos):
    card = evaluate(mean_colour, photos, ["thick", "center"], size=32)
    assert [*card.metrics] == ["thick", "center", "all"]
    counts = {name: found["n"]["value"] for name, found in card.metrics.items()}
    assert counts == dict(thick=8, center=8, all=16)
    assert sum(found["n"]["value"] for found in card.by_area.values()) == 16
    for found in [*card.metrics.values(), *card.by_area.values()]:
        n, fd, kid = (found[name]["value"] for name in ("n", "fd_efflite0", "kid_efflite0"))
        assert (fd is None) == (n < 2) and (kid is None) == (n < 4)
    assert "| all | 16 | 0." in card.markdown()


def test_several_fills_of_a_hole_the_best_and_how_they_differ(photos, tiny_diffusion):
    net, seen = tiny_diffusion(), []
    forward = net.forward
    def watched(masked, mask, seed):
        seen.append((seed, forward(masked, mask, seed=seed)))
        return seen[-1][1]
    net.forward = watched
    card = evaluate(net, photos, "center", **QUICK, limit=2, fills=3)
    again = evaluate(net, photos, "center", **QUICK, limit=2, fills=3)
    assert card.images == again.images and card.rules["fills"] == 3
    seeds, preds = zip(*seen[:6], strict=True)
    assert len(set(seeds)) == 6 and seeds == tuple(seed for seed, _ in seen[6:])
    lpips = LPIPS().load()
    for row, item, fills in zip(card.images, holes(photos, "center", 32, limit=2), (preds[:3], preds[3:]),
                                strict=True):
        image, mask = tensors(item)
        filled = [composite((o.clamp(0, 1)*255).round()/255, image, mask) for o in fills]
        def distance(a, b): return lpips(a, b, normalize=True).item()
        each = [distance(o, image) for o in filled]
        assert row["lpips"] == pytest.approx(np.mean(each), rel=1e-4)
        assert row["lpips_best"] == pytest.approx(min(each), rel=1e-4)
        pairs = [distance(filled[a], filled[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
        assert row["diversity"] == pytest.approx(np.mean(pairs), rel=1e-4) and row["diversity"] > 0
    assert {"lpips", "lpips_best", "diversity", "psnr"} <= values(card, "center").keys()
    first = evaluate(net, photos, "center", **QUICK, limit=2)
    assert seen[-2][0] == seeds[0] and "diversity" not in first.images[0]


@pytest.mark.parametrize("fills", [0, 2])
def test_other_fills_than_there_are_are_refused(photos, fills):
    with pytest.raises(ValueError, match=f"no {fills} fills of mean_colour"):
        evaluate("mean_colour", photos, "center", **QUICK, fills=fills)


def test_lpips_is_measured_by_the_networks_asked_for(photos):
    card = evaluate(mean_colour, photos, "center", limit=1, lpips=("alex", "vgg"), **QUICK)
    found = values(card, "center")
    assert found["lpips_vgg"] == card.images[0]["lpips_vgg"] and found["lpips_vgg"] != found["lpips"]
    assert "lpips_vgg" not in values(evaluate(mean_colour, photos, "center", limit=1, **QUICK), "center")


def grey(folder, **pictures):
    "A folder of uint8 grey pictures by stem"
    folder.mkdir()
    for stem, pixels in pictures.items(): Image.fromarray(pixels).convert("RGB").save(folder/f"{stem}.png")
    return folder


def test_images_are_grouped_by_share_of_hole_and_drift_is_that_of_known_pixels(tmp_path):
    shares = dict(none=0, quarter=.25, half=.5, all=1)
    masks = {stem: np.zeros((20, 20), np.uint8) for stem in shares}
    for stem, share in shares.items(): masks[stem][:round(20*share)] = 255
    same = {stem: np.full((20, 20), 100, np.uint8) for stem in shares}
    filled = {stem: np.where(masks[stem] > 0, 0, 151).astype(np.uint8) for stem in shares}
    card = evaluate_files(grey(tmp_path/"images", **same), grey(tmp_path/"masks", **masks),
                          grey(tmp_path/"filled", **filled), frechet=False)
    groups = {name: found["n"]["value"] for name, found in card.by_area.items()}
    assert groups == {"20%–30%": 1, "40%–50%": 1, "50%–100%": 1}
    assert all(found["hole_l1"]["value"] == pytest.approx(100/255) for found in card.by_area.values())
    drifts = {r["name"]: r["drift"] for r in card.images}
    assert drifts == pytest.approx(dict(none=.2, quarter=.2, half=.2, all=0))
    assert card.drift == pytest.approx(.15)


def test_a_fill_that_overshoots_is_judged_as_it_is_saved(photos):
    over, saved = (evaluate(fill, photos, "thick", **QUICK) for fill in (
        lambda i, m: 4*i - 1.5, lambda i, m: (4*i - 1.5).clamp(0, 1)))
    assert over.metrics == saved.metrics


# what cannot be judged

@pytest.mark.parametrize("fill, message", [
    (lambda i, m: i[..., 1:], r"must be a tensor \[1, 3, 32, 32\], got \[1, 3, 32, 31\]"),
    (lambda i, m: i*torch.nan, "NaN"), (lambda i, m: i.numpy(), "must be a tensor"),
    (lambda i, m: i*255 + 9, r"images are in \[0, 1\]"), (lambda i, m: None, "NoneType")])
def test_wrong_fills_are_named(photos, fill, message):
    with pytest.raises(ValueError, match=f"fill of 0.png.*{message}"):
        evaluate(fill, photos, "thick", **QUICK)


def test_what_is_no_model_is_named(photos, tmp_path):
    with pytest.raises(ValueError, match="no model.*biharmonic"): evaluate(3, photos, **QUICK)
    with pytest.raises(FileNotFoundError): evaluate("nowhere.safetensors", photos, **QUICK)
    with pytest.raises((FileNotFoundError, OSError), match=str(tmp_path)):
        evaluate(mean_colour, tmp_path, **QUICK)


@pytest.fixture
def folders(photos, tmp_path):
    export_photos(photos, tmp_path, ["thick"], 32)
    return tmp_path/"thick/images", tmp_path/"thick/masks", tmp_path/"thick/images"


def test_folders_that_do_not_match_name_both_sides(folders):
    images, masks, filled = folders
    (masks/"3.png").rename(masks/"x.png")
    with pytest.raises(ValueError, match=f"{images} lacks x; {masks} lacks 3; {filled} lacks x"):
        evaluate_files(images, masks, filled, frechet=False)


def test_files_of_other_sizes_are_named(folders):
    Image.new("L", (9, 32)).save(folders[1]/"2.png")
    with pytest.raises(ValueError, match="of one size.*masks/2.png 9x32"):
        evaluate_files(*folders, frechet=False)


@pytest.fixture
def pooled_colours(monkeypatch):
    "Stands in for Inception on both sides: the 12 means of an image's quarters"
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Quarters(torch.nn.Module):
        num_features = 12
        def forward(self, images):
            return torch.nn.functional.adaptive_avg_pool2d(images.double(), 2).flatten(1)

    class Theirs(FeatureExtractorBase):
        def __init__(self, name="quarters", features_list=("quarters",), **kwargs):
            super().__init__(name, features_list)
        @staticmethod
        def get_provided_features_list(): return ("quarters",)
        @staticmethod
        def get_default_feature_layer_for_metric(metric): return "quarters"
        @staticmethod
        def can_be_compiled(): return False
        def forward(self, images): return (Quarters()(images),)

    fidelity.register_feature_extractor("quarters", Theirs)
    monkeypatch.setattr(distances, "inception_features", Quarters)
    return fidelity


def test_our_fid_is_that_of_torch_fidelity_on_the_same_folders(pooled_colours, tmp_path):
    rng, real, made = np.random.default_rng(0), tmp_path/"real", tmp_path/"made"
    for folder in real, made, tmp_path/"masks": folder.mkdir()
    for i in range(30):
        image, hole = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), rng.random((16, 16)) < .5
        filled = np.where(hole[..., None], rng.integers(0, 200, image.shape, dtype=np.uint8), image)
        for folder, pixels in (real, image), (made, filled), (tmp_path/"masks", hole.astype(np.uint8)*255):
            Image.fromarray(pixels).save(folder/f"{i}.png")
    ours = evaluate_files(real, tmp_path/"masks", made).metrics["masks"]["fid"]["value"]
    theirs = pooled_colours.calculate_metrics(input1=str(made), input2=str(real), fid=True, cuda=False,
                                              verbose=False, feature_extractor="quarters",
                                              save_cpu_ram=True, batch_size=8)
    assert ours > 1 and ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
