"""Detection on what users have: pictures, folders and videos in, drawings and one JSON document out."""
