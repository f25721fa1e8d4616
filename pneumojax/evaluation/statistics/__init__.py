"""Statistics that know nothing of images: resampling, exact intervals, regression."""
