"From a photograph and its hole to the result"
