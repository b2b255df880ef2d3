-- A job on bytes that were segmented before, by the same model with the same settings, takes over the earlier result.
-- recipe: the program's version and a checksum of all of the model's settings; '' = made before this column, never reused.
-- cached_from: the segmentation that was taken over; it may be gone by now.
ALTER TABLE segmentations ADD COLUMN recipe text NOT NULL DEFAULT '', ADD COLUMN cached_from uuid;
CREATE INDEX images_sha256 ON images (sha256);
