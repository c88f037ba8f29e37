"""Detection on images, folders and videos; output as drawings and one JSON document."""
