"""Reading and writing datasets of images, label maps and superpixel maps in common layouts."""
