DROP TRIGGER IF EXISTS segmentations_options ON segmentations;
DROP FUNCTION IF EXISTS segmentation_lacks_options();
ALTER TABLE images DROP COLUMN IF EXISTS times, DROP COLUMN IF EXISTS slices, DROP COLUMN IF EXISTS plane_channels;
ALTER TABLE models DROP COLUMN IF EXISTS options;
ALTER TABLE segmentations DROP COLUMN IF EXISTS options;
ALTER TABLE jobs DROP COLUMN IF EXISTS options;
