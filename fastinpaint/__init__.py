"Image inpainting in latent space, the fast.ai way: see `fastinpaint.all`"
import warnings

warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # fastai compiles two activations on import
