"""Detection on what users have: images, folders and videos in, drawings and one JSON document out."""
