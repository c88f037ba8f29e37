"""Networks in use: images in, detections out."""
