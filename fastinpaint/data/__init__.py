"Photographs, their holes, and batches of both"
