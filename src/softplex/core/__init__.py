"""What all maps share. No map, no framework and no kernel is named in this package."""
