"""``python -m segdist.data.scenes``."""

import sys

from segdist.data.scenes.dataset import main

if __name__ == "__main__":
    sys.exit(main())
