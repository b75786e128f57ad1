"The bundled model, judged as a user judges it"
import torch

from fastinpaint.data.named import named_data
from fastinpaint.judge.evaluate import evaluate
from fastinpaint.models.load import load_model
from fastinpaint.models.prefill import smooth_fill


def test_the_sample_model_fills_better_than_its_prefill_because_of_its_refiner():
    def judged(model):
        card = evaluate(model, named_data("sample")/"valid", "thick", 128, limit=8, frechet=False)
        return card.metrics["thick"]["hole_l1"]["value"]
    model, silenced = load_model("sample"), load_model("sample")
    silenced.refiner = torch.nn.Identity()
    ours, smooth, without = map(judged, (model, smooth_fill, silenced))
    assert ours < .97*smooth < without
