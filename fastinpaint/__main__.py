"`python -m fastinpaint` is the command `fastinpaint`"
from .cli import main

if __name__ == "__main__": main(prog_name="fastinpaint")
