"""Images and videos in which objects are hidden: detections become tracks, tracks masks, masks pixels."""
