"Callbacks that make the methods: freeze schedule, latent loss, checkpoints, tracking"
