"Texture for a network's fill, from the photograph itself"
