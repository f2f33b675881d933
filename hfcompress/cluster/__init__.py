"""Workers on a Ray cluster, which score what one process would score."""
