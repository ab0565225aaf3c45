"""report/index.html: the zoo as pages that a browser opens from the disk, without a network."""
