"Image inpainting in latent space, the fast.ai way"
