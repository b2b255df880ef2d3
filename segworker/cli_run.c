/*
 * `segworker run`: the pipeline of the daemon on files, for scripts and batch systems. One model is loaded once. A few
 * images are under way at a time, so that the network has work while others are decoded, outlined and written
 * (lanes.h); what is said about them comes in their order. A broken image is reported and the others still run.
 */
#include "segworker/cli_run.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/thread_util.h"
#include "segworker/cli_plane.h"
#include "segworker/models.h"
#include "segworker/output/output.h"
#include "segworker/pipeline/lanes.h"
#include "segworker/pipeline/options.h"
#include "segworker/pipeline/pipeline.h"

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { MOST_AT_A_TIME = 64 };

typedef struct {
    const char *model, *device, *out, *format;
    job_options_t job;
    bool quiet, timings;
    int threads, at_once; /* images under way at a time; 0 = so many that no lane waits */
    image_select_t plane;
    char **images;
    int nimages;
    bool out_is_dir;
    output_format_t dir_format; /* of files written into a directory */
} options_t;

void cli_run_help(FILE *out) {
    fputs("Usage: segworker run [options] IMAGE... -o OUT\n"
          "\n"
          "Finds the objects in images and writes their outlines. Needs no server.\n"
          "\n"
          "  -o OUT            file ending in .geojson, .json, .svg, .png (16-bit labels) or .tif (32-bit labels);\n"
          "                    or a folder, which gets one file per image\n"
          "  --format FORMAT   geojson, json, svg, png or tif, for files written into a folder (geojson)\n"
          "  --model NAME|DIR  a model of MODELS_DIR, or a model folder (the first model of MODELS_DIR)\n"
          "  --threshold T     foreground probability between 0 and 1 (the model's own)\n"
          "  --no-holes        fill holes in objects\n"
          "  --max-hole PX     fill holes of up to PX square pixels (the model's own)\n"
          "  --min-area PX     leave out objects of fewer square pixels (the model's own)\n"
          "  --max-area PX     leave out objects of more; 0 = no limit (0)\n"
          "  --augment HOW     average the network over flipped and turned inputs: none, flips (4 runs) or\n"
          "                    rotations (8 runs) (the model's own)\n"
          "  --page N          page of a multi-page file, counted from 1 (1)\n"
          "  --channel N       channel, counted from 1 (grey as is, colours as brightness, else the mean)\n"
          "  --mix W,W,...     weights of the channels instead\n"
          "  --z N, --time N   slice and time of an OME-TIFF or ImageJ stack, counted from 1 (those of the page)\n"
          "  --device DEVICE   auto, cpu, cuda or cuda:N (SEGWORKER_DEVICE)\n"
          "  --threads N       CPU threads in all, 0 = one per core (SEGWORKER_THREADS)\n"
          "  --at-once N       images under way at a time, 0 = as many as keep the threads busy (0)\n"
          "  --timings         print the seconds of each stage\n"
          "  --quiet           print errors only\n"
          "\n"
          "Exit code: 0 all images done, 1 some image failed (the others are written), 2 wrong usage.\n",
          out);
}

static int usage(const char *words) {
    fprintf(stderr, "segworker run: %s\nTry: segworker run --help\n", words);
    return EXIT_USAGE;
}

/* ---- options ---- */

static bool parse_real(const char *s, double least, double most, double *out) {
    char *end = NULL;
    errno = 0;
    double v = strtod(s, &end);
    if (errno || end == s || *end || !(v >= least && v <= most)) {
        return false;
    }
    *out = v;
    return true;
}

static bool parse_whole(const char *s, long least, long most, int *out) {
    char *end = NULL;
    errno = 0;
    long v = strtol(s, &end, 10);
    if (errno || end == s || *end || v < least || v > most) {
        return false;
    }
    *out = (int)v;
    return true;
}

static bool parse_area(const char *s, int64_t *out) {
    double v = 0;
    if (!parse_real(s, 0, 1e12, &v) || v != floor(v)) {
        return false;
    }
    *out = (int64_t)v;
    return true;
}

enum {
    OPT_MODEL = 256,
    OPT_THRESHOLD,
    OPT_NO_HOLES,
    OPT_DEVICE,
    OPT_THREADS,
    OPT_AT_ONCE,
    OPT_PAGE,
    OPT_CHANNEL,
    OPT_MIX,
    OPT_Z,
    OPT_TIME,
    OPT_QUIET,
    OPT_FORMAT,
    OPT_TIMINGS,
    OPT_MAX_HOLE,
    OPT_MIN_AREA,
    OPT_MAX_AREA,
    OPT_AUGMENT,
    OPT_HELP
};

static const struct option LONG_OPTIONS[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"threshold", required_argument, NULL, OPT_THRESHOLD},
    {"no-holes", no_argument, NULL, OPT_NO_HOLES},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"at-once", required_argument, NULL, OPT_AT_ONCE},
    {"page", required_argument, NULL, OPT_PAGE},
    {"channel", required_argument, NULL, OPT_CHANNEL},
    {"mix", required_argument, NULL, OPT_MIX},
    {"z", required_argument, NULL, OPT_Z},
    {"time", required_argument, NULL, OPT_TIME},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"format", required_argument, NULL, OPT_FORMAT},
    {"timings", no_argument, NULL, OPT_TIMINGS},
    {"max-hole", required_argument, NULL, OPT_MAX_HOLE},
    {"min-area", required_argument, NULL, OPT_MIN_AREA},
    {"max-area", required_argument, NULL, OPT_MAX_AREA},
    {"augment", required_argument, NULL, OPT_AUGMENT},
    {"output", required_argument, NULL, 'o'},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

/* Sets one option; NULL when it is fine, else what is wrong. */
static const char *set_option(options_t *o, int c) {
    switch (c) {
    case 'o':
        o->out = optarg;
        return NULL;
    case OPT_MODEL:
        o->model = optarg;
        return NULL;
    case OPT_THRESHOLD:
        return parse_real(optarg, 1e-6, 1 - 1e-6, &o->job.threshold) ? NULL
                                                                     : "--threshold takes a number between 0 and 1";
    case OPT_NO_HOLES:
        o->job.detect_holes = false;
        return NULL;
    case OPT_MAX_HOLE:
        return parse_area(optarg, &o->job.max_hole_area) ? NULL : "--max-hole takes a whole number from 0 on";
    case OPT_MIN_AREA:
        return parse_area(optarg, &o->job.min_area) ? NULL : "--min-area takes a whole number from 0 on";
    case OPT_MAX_AREA:
        return parse_area(optarg, &o->job.max_area) ? NULL : "--max-area takes a whole number from 0 on";
    case OPT_AUGMENT: {
        model_tta_t tta = MODEL_TTA_NONE;
        bool known = model_tta_parse(optarg, &tta);
        o->job.tta = (int)tta;
        return known ? NULL : "--augment takes none, flips or rotations";
    }
    case OPT_DEVICE:
        o->device = optarg;
        return NULL;
    case OPT_THREADS:
        return parse_whole(optarg, 0, 1024, &o->threads) ? NULL : "--threads takes a number from 0 to 1024";
    case OPT_AT_ONCE:
        return parse_whole(optarg, 0, MOST_AT_A_TIME, &o->at_once) ? NULL : "--at-once takes a number from 0 to 64";
    case OPT_PAGE:
        return cli_plane_set(&o->plane, "page", optarg);
    case OPT_CHANNEL:
        return cli_plane_set(&o->plane, "channel", optarg);
    case OPT_MIX:
        return cli_plane_set(&o->plane, "mix", optarg);
    case OPT_Z:
        return cli_plane_set(&o->plane, "z", optarg);
    case OPT_TIME:
        return cli_plane_set(&o->plane, "time", optarg);
    case OPT_QUIET:
        o->quiet = true;
        return NULL;
    case OPT_TIMINGS:
        o->timings = true;
        return NULL;
    case OPT_FORMAT:
        o->format = optarg;
        return NULL;
    default:
        return "unknown option or missing value";
    }
}

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Decides between one file and a folder of files. NULL when fine. */
static const char *settle_output(options_t *o) {
    if (!o->out) {
        return "say where the result goes: -o OUT";
    }
    o->out_is_dir = is_folder(o->out) || o->out[strlen(o->out) ? strlen(o->out) - 1 : 0] == '/';
    if (!o->out_is_dir && o->nimages > 1) {
        o->out_is_dir = true; /* created when it does not exist */
        if (access(o->out, F_OK) == 0 || output_format_of(o->out) != OUTPUT_UNKNOWN) {
            return "several images need a folder after -o";
        }
    }
    if (o->out_is_dir) {
        char name[32];
        snprintf(name, sizeof name, "x.%.20s", o->format ? o->format : "geojson");
        o->dir_format = output_format_of(name);
        return o->dir_format == OUTPUT_UNKNOWN ? "--format takes geojson, json, svg, png or tif" : NULL;
    }
    if (o->format) {
        return "--format goes with a folder; a file's format follows its name";
    }
    return output_format_of(o->out) == OUTPUT_UNKNOWN ? "OUT must end in .geojson, .json, .svg, .png or .tif" : NULL;
}

/* 0 = go on; otherwise *code is the exit code. */
static int parse_options(int argc, char **argv, const config_t *cfg, options_t *o, int *code) {
    *o = (options_t){.device = cfg->device,
                     .threads = (int)cfg->torch_threads,
                     .job = JOB_OPTIONS_DEFAULT,
                     .plane = IMAGE_SELECT_DEFAULT};
    int c = 0;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "o:h", LONG_OPTIONS, NULL)) != -1) {
        if (c == 'h' || c == OPT_HELP) {
            cli_run_help(stdout);
            *code = EXIT_FINE;
            return -1;
        }
        const char *wrong = set_option(o, c);
        if (wrong) {
            *code = usage(wrong);
            return -1;
        }
    }
    o->images = argv + optind;
    o->nimages = argc - optind;
    const char *wrong = o->nimages == 0 ? "name at least one image" : settle_output(o);
    if (wrong) {
        *code = usage(wrong);
        return -1;
    }
    return 0;
}

/* ---- names of the files to write ---- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* OUT/BASENAME.format without the image's own extension; or OUT itself. */
static bool output_path(const options_t *o, const char *image, char *path, size_t size) {
    if (!o->out_is_dir) {
        return (size_t)snprintf(path, size, "%s", o->out) < size;
    }
    const char *base = base_name(image), *dot = strrchr(base, '.');
    int stem = dot && dot != base ? (int)(dot - base) : (int)strlen(base);
    const char *format = o->format ? o->format : "geojson";
    return (size_t)snprintf(path, size, "%s/%.*s.%s", o->out, stem, base, format) < size;
}

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Two images of one name would overwrite each other's result: refused before anything runs. */
static bool names_collide(const options_t *o) {
    char **names = calloc((size_t)o->nimages, sizeof *names);
    bool collide = false, complete = names != NULL;
    for (int i = 0; complete && i < o->nimages; i++) {
        char path[4096];
        complete = output_path(o, o->images[i], path, sizeof path) && (names[i] = strdup(path)) != NULL;
    }
    if (complete) {
        qsort(names, (size_t)o->nimages, sizeof *names, compare_texts);
        for (int i = 1; i < o->nimages && !collide; i++) {
            collide = strcmp(names[i - 1], names[i]) == 0;
        }
    }
    for (int i = 0; names && i < o->nimages; i++) {
        free(names[i]);
    }
    free(names);
    return collide;
}

/* ---- running ---- */

static void print_error(FILE *to, const char *what, const err_t *err) {
    fprintf(to, "%s: %s (%s)\n", what, err->message, err->code);
}

/* All images; under the lock but for what stays the same. */
typedef struct {
    pipeline_t *p;
    const options_t *o;
    const config_t *cfg;
    pthread_mutex_t lock;
    int next;     /* image that comes next */
    int told;     /* images whose words were printed */
    char **words; /* of each image that has ended */
    int code;
    bool show; /* how far it is, on a terminal */
    int percent;
} batch_t;

typedef struct {
    batch_t *b;
    int image;
} progress_t;

static void on_progress(void *arg, const char *stage, double fraction) {
    progress_t *p = arg;
    batch_t *b = p->b;
    int percent = (int)(fraction * 100);
    (void)pthread_mutex_lock(&b->lock);
    if (p->image == b->told && percent != b->percent) { /* the one whose words come next */
        b->percent = percent;
        fprintf(stderr, "\r\033[K[%d/%d] %s  %s %d%%", p->image + 1, b->o->nimages, base_name(b->o->images[p->image]),
                stage, percent);
    }
    (void)pthread_mutex_unlock(&b->lock);
}

static void print_result(FILE *to, const options_t *o, const char *image, const result_t *r) {
    if (o->quiet) {
        return;
    }
    fprintf(to, "%s: %u object%s%s%s\n", image, r->count, r->count == 1 ? "" : "s", r->note[0] ? ". " : "", r->note);
    for (int i = 0; o->timings && i < r->nstages; i++) {
        fprintf(to, "  %-10s %8.3f s\n", r->stages[i].name, r->stages[i].seconds);
    }
}

static bool run_one(batch_t *b, int i, FILE *words) {
    const options_t *o = b->o;
    const char *image = o->images[i];
    progress_t progress = {.b = b, .image = i};
    pipeline_callbacks_t cb = {.arg = &progress, .progress = b->show ? on_progress : NULL};
    pipeline_params_t params = {.options = &o->job,
                                .plane = &o->plane,
                                .limits = {.max_pixels = b->cfg->max_image_pixels,
                                           .max_decoded_bytes = b->cfg->max_decoded_bytes,
                                           .max_pages = (int32_t)b->cfg->max_image_pages},
                                .max_objects = (uint32_t)b->cfg->max_objects};
    char path[4096];
    result_t result;
    err_t err;
    err_clear(&err);
    err_kind_t k = pipeline_run(b->p, image, &params, &cb, &result, &err);
    if (k == ERR_OK && !output_path(o, image, path, sizeof path)) {
        k = err_set(&err, ERR_INVALID, "output_write_failed", "The name of the result is too long.", NULL);
    }
    if (k == ERR_OK) {
        output_options_t oo = {.image_name = base_name(image), .stage_times = o->timings};
        k = output_write_file(&result, path, &oo, &err);
    }
    if (k == ERR_OK) {
        print_result(words, o, image, &result);
    } else {
        print_error(words, image, &err);
    }
    result_free(&result);
    return k == ERR_OK;
}

/* Prints what is known about images that have ended, up to the first that has not; the lock is held. */
static void tell(batch_t *b) {
    while (b->told < b->o->nimages && b->words[b->told]) {
        fprintf(stderr, "%s%s", b->show ? "\r\033[K" : "", b->words[b->told]);
        free(b->words[b->told]);
        b->words[b->told++] = NULL;
        b->percent = -1;
    }
}

static void *run_images(void *arg) {
    batch_t *b = arg;
    (void)pthread_mutex_lock(&b->lock);
    while (b->next < b->o->nimages) {
        int i = b->next++;
        char *text = NULL;
        size_t size = 0;
        (void)pthread_mutex_unlock(&b->lock);
        FILE *words = open_memstream(&text, &size);
        bool ok = words && run_one(b, i, words);
        bool said = words && fclose(words) == 0 && text;
        (void)pthread_mutex_lock(&b->lock);
        b->words[i] = said ? text : strdup("out of memory\n");
        b->code = ok ? b->code : EXIT_FAILED;
        tell(b);
    }
    (void)pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* All images, a few at a time: so that no lane waits, one more than there are lanes. */
static int run_all(pipeline_t *p, const options_t *o, const config_t *cfg) {
    batch_t b = {.p = p, .o = o, .cfg = cfg, .show = !o->quiet && isatty(STDERR_FILENO), .percent = -1};
    pthread_t threads[MOST_AT_A_TIME];
    int lanes = 1, each = 1, n = 0;
    pipeline_lanes(p, &lanes, &each);
    int wanted = o->at_once > 0 ? o->at_once : lanes + 1;
    wanted = wanted < MOST_AT_A_TIME ? wanted : MOST_AT_A_TIME;
    wanted = wanted < o->nimages ? wanted : o->nimages;
    b.words = calloc((size_t)o->nimages, sizeof *b.words);
    if (!b.words) {
        fputs("segworker run: out of memory\n", stderr);
        return EXIT_FAILED;
    }
    (void)pthread_mutex_init(&b.lock, NULL);
    while (n + 1 < wanted && thread_start(&threads[n], "image", run_images, &b) == 0) {
        n++;
    }
    (void)run_images(&b);
    for (int i = 0; i < n; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    (void)pthread_mutex_destroy(&b.lock);
    free(b.words);
    return b.code;
}

/* --model: a folder with a model.json, else a name in MODELS_DIR, else the first model there. */
static err_kind_t find_model(const options_t *o, const config_t *cfg, model_spec_t *spec, err_t *err) {
    if (o->model && (strchr(o->model, '/') || strcmp(o->model, ".") == 0)) {
        return model_spec_load(o->model, spec, err);
    }
    model_registry_t reg;
    err_kind_t k = models_load(cfg->models_dir, o->model ? o->model : cfg->worker_models, &reg, err);
    if (k == ERR_OK) {
        *spec = reg.models[0];
        models_free(&reg);
    } else if (o->model && is_folder(o->model)) {
        k = model_spec_load(o->model, spec, err);
    }
    return k;
}

int cli_run(int argc, char **argv, const config_t *cfg) {
    options_t o;
    int code = EXIT_FINE;
    if (parse_options(argc, argv, cfg, &o, &code) != 0) {
        return code;
    }
    if (o.out_is_dir && names_collide(&o)) {
        return usage("two images have the same name, so their results would overwrite each other");
    }
    if (o.out_is_dir && !is_folder(o.out) && mkdir(o.out, 0777) != 0) {
        fprintf(stderr, "segworker run: the folder %s cannot be created: %s\n", o.out, strerror(errno));
        return EXIT_FAILED;
    }
    model_spec_t *spec = calloc(1, sizeof *spec);
    pipeline_t *p = NULL;
    err_t err;
    err_clear(&err);
    err_kind_t k = ERR_NO_MEMORY;
    if (spec) {
        k = find_model(&o, cfg, spec, &err);
    }
    if (k == ERR_OK) {
        lanes_set_up(&(lanes_setup_t){.threads = o.threads,
                                      .lanes = (int)cfg->lanes,
                                      .batch = (int)cfg->batch,
                                      .batch_wait_ms = (int)cfg->batch_wait_ms});
        k = pipeline_create(spec, o.device, &p, &err);
    }
    if (k != ERR_OK) {
        print_error(stderr, "segworker run", &err);
        code = EXIT_FAILED;
    }
    if (k == ERR_OK) {
        code = run_all(p, &o, cfg);
    }
    pipeline_free(p);
    free(spec);
    return code;
}

/* ---- segworker models ---- */

int cli_models(int argc, char **argv, const config_t *cfg) {
    if (argc > 1) {
        bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;
        fputs(
            "Usage: segworker models\n\nLists the models in MODELS_DIR: name, version, title; broken ones on stderr.\n",
            help ? stdout : stderr);
        return help ? EXIT_FINE : EXIT_USAGE;
    }
    model_registry_t reg;
    err_t err;
    err_clear(&err);
    if (models_load(cfg->models_dir, cfg->worker_models, &reg, &err) != ERR_OK) {
        print_error(stderr, "segworker models", &err);
        return EXIT_FAILED;
    }
    for (int i = 0; i < reg.count; i++) {
        const model_spec_t *m = &reg.models[i];
        printf("%s\t%s\t%s\n", m->name, m->version, m->title);
    }
    for (int i = 0; i < reg.nproblems; i++) {
        print_error(stderr, reg.problems[i].name, &reg.problems[i].err);
    }
    int code = reg.nproblems ? EXIT_FAILED : EXIT_FINE;
    models_free(&reg);
    return code;
}
