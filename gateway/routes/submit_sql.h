/*
 * Pieces of SQL that the statements that make jobs share. Internal to submit*.c.
 */
#ifndef SG_GATEWAY_SUBMIT_SQL_H
#define SG_GATEWAY_SUBMIT_SQL_H

/* The model of an image that names none: the project's, else of those registered the one whose name occurs in the
 * image's name, else in the project's title, else the first, those with a network before those without. i, p: the image
 * and its project. */
#define SUBMIT_MODEL_FOR(wanted)                                                                                       \
    "COALESCE(" wanted ", p.default_model, (SELECT m.name FROM models m ORDER BY "                                     \
    "strpos(lower(i.name), lower(m.name)) > 0 DESC, strpos(lower(p.title), lower(m.name)) > 0 DESC, "                  \
    "COALESCE(m.manifest #>> '{output,kind}', '') = 'classical', m.name LIMIT 1))"

/* Two triggers of one image at the same time meet at the index jobs_one_unfinished_per_image. */
#define SUBMIT_ON_CONFLICT " ON CONFLICT (image_id) WHERE state IN ('queued', 'active', 'delayed') DO NOTHING "

/* The images a request is about, as a query with $1 project, $2 ids or NULL, $3 only those without a result. */
#define SUBMIT_IMAGES                                                                                                  \
    "SELECT i.id FROM images i WHERE i.project_id = $1 AND ($2::uuid[] IS NULL OR i.id = ANY ($2::uuid[])) AND "       \
    "(NOT $3::boolean OR i.current_segmentation_id IS NULL)"

#endif
