"""From images to first label maps and superpixel maps."""
