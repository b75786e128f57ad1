"Commands that train no method of their own: compare, evaluate, demo, benchmarks"
