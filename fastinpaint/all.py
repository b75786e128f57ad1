"The one star-import surface: `from fastinpaint.all import *`"
from .core.imports import lasting as _lasting

with _lasting():
    from functools import partial

    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders

    from .core.program import program
    from .core.settings import flag, group, setting
    from .data.holes import PRESETS
    from .data.loaders import InpaintDataLoaders, inpaint_block
    from .data.named import named_data
    from .data.shard_writer import write_shards
    from .fill.inpainter import Inpainter
    from .judge.distances import FID, FDEffLite0
    from .judge.evaluate import evaluate, evaluate_files
    from .judge.metrics import LPIPS, PSNR, SSIM, Grid, HoleL1, default_metrics
    from .judge.protocol import export_photos
    from .judge.show import batch_figure, damage_figure, latent_damage, results_figure, show_latent_damage
    from .models.autoencoders import frozen_autoencoder, is_foreign, refuse_foreign
    from .models.context_encoder import context_encoder
    from .models.control import add_control
    from .models.discriminator import LatentDiscriminator, PatchGAN, load_discriminator
    from .models.fcf import FcF, fcf
    from .models.lama import lama
    from .models.latent_diffusion import LatentDiffusion, add_latent_control, latent_diffusion
    from .models.latent_net import latent_net, new_autoencoder, save_autoencoder
    from .models.load import load_model, save_model
    from .models.net import InpaintNet, composite
    from .models.perceptual import perceptual_network
    from .models.pipeline import from_diffusers
    from .models.published import load_lama
    from .models.sampling import Sampling
    from .models.upsampler import upsampler
    from .serve import hub as _hub  # gives InpaintNet from_pretrained and push_to_hub
    from .train.callback.adversarial import AdversarialTraining, adversarial_callbacks
    from .train.callback.centre import Centre
    from .train.callback.checkpoint import Checkpoint
    from .train.callback.code import Code
    from .train.callback.compiled import Compiled
    from .train.callback.denoise import Denoising, denoising_parts
    from .train.callback.distributed import Distributed
    from .train.callback.ema import EMA
    from .train.callback.fit import FitCallback
    from .train.callback.freeze import FreezeSchedule
    from .train.callback.gradient_share import GradientShare, weight_for_share
    from .train.callback.history import History
    from .train.callback.latent import LatentLoss
    from .train.callback.latent_adversarial import LatentAdversarial
    from .train.callback.noise import StyleNoise
    from .train.callback.precision import BFloat16
    from .train.callback.reconstruct import Reconstruct
    from .train.callback.terms import LossTerms
    from .train.callback.tracking import WandbTracking
    from .train.groups import parameter_groups
    from .train.learner import InpaintLearner, inpaint_learner
    from .train.losses import InpaintLoss, Perceptual, PixelL1, PixelMSE, Term, full_loss
    from .train.run import train_recipe
    from .train.settings import (
        AdversarialSettings,
        DiffusionSettings,
        LatentSettings,
        Settings,
        thesis_setting,
    )
