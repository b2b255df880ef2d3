-- What can be chosen for a job besides model, threshold and holes (proto/openapi.yaml, JobOptions).
-- jobs.options: as asked for, in canonical form; segmentations.options: as used, '{}' = made before this column, never
-- reused; models.options: what the model takes, and its own values.
ALTER TABLE jobs ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
ALTER TABLE segmentations ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
ALTER TABLE models ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
-- What a file's pages are: channels of a plane, slices and times. NULL = uploaded before these columns.
ALTER TABLE images ADD COLUMN plane_channels integer, ADD COLUMN slices integer, ADD COLUMN times integer;
-- A worker from before these columns ignores a job's options. Its result is refused instead of being shown as what was
-- asked for; the job's next attempt may meet a newer worker. Newer ones always say what they used.
CREATE FUNCTION segmentation_lacks_options() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM jobs WHERE id = NEW.job_id AND options <> '{}') THEN
        RAISE EXCEPTION 'the worker does not know the options of the job';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER segmentations_options BEFORE INSERT ON segmentations FOR EACH ROW
    WHEN (NEW.options = '{}') EXECUTE FUNCTION segmentation_lacks_options();
