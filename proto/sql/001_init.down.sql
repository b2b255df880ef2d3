ALTER TABLE images DROP CONSTRAINT IF EXISTS images_current_segmentation_fk;
DROP TABLE IF EXISTS idempotency_keys, objects, segmentations, jobs, models, images, projects, refresh_tokens, users;
