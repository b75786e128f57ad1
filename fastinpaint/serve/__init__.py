"Models and fills for others: the page, other runtimes, the Hugging Face Hub"
