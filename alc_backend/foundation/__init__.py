"""The first label maps and superpixel maps of images, made by foundation models or by SLIC."""
