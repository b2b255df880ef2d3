ALTER TABLE images RESET (fillfactor);
DROP TABLE pushes;
