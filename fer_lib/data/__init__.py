"""Read raw files and images, frame and pack faces, and open and examine the packed store."""
