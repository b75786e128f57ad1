"How a model learns: losses, learner, callbacks, runs"
