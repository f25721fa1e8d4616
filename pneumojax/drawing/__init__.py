"""Pictures and HTML: overlays, heat maps, curves, report pages."""
