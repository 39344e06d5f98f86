"""Jobs over REST: what pages do, for programs."""
