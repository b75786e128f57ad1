"The one star-import surface: `from fastinpaint.all import *`"
from functools import partial

from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastcore.script import store_true

from .callback.adversarial import AdversarialTraining
from .callback.checkpoint import Checkpoint, History
from .callback.ema import EMA
from .callback.freeze import FreezeSchedule
from .callback.latent import LatentLoss
from .callback.precision import BFloat16
from .callback.reconstruct import Reconstruct
from .callback.terms import LossTerms
from .callback.tracking import WandbTracking
from .data import InpaintDataLoaders, inpaint_block
from .evaluate import evaluate, evaluate_files
from .inpaint import Inpainter
from .learner import inpaint_learner, load_model, save_model
from .losses import InpaintLoss, Perceptual, PixelL1, PixelMSE
from .masks import PRESETS
from .metrics import FID, LPIPS, PSNR, SSIM, FDEffLite0, HoleL1, composite, default_metrics
from .models.context_encoder import context_encoder
from .models.discriminator import PatchGAN, load_discriminator
from .models.lama import InpaintNet, lama
from .models.public import load_lama
from .photos import named_data
from .pretrained import perceptual_network
from .protocol import export as export_photos
from .recipe import full_loss, recipe_flags, train_recipe
from .script import call_parse
from .show import latent_damage, results_figure, show_latent_damage
