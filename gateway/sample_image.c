/*
 * Synthetic microscopy, see sample_image.h. A field is a float plane: shapes are placed by rejection so that they do
 * not pile up, drawn with a soft edge and a grain of value noise, and the optics and the camera are applied to the
 * whole plane at the end.
 */
#include "sample_image.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define TWO_PI 6.283185307179586
enum { HARMONICS = 5, MAX_OBJECTS = 512, PLACE_TRIES = 400 };

/* ---- randomness: splitmix64 (Steele, Lea, Flood 2014), Box-Muller normal deviates, value noise on a lattice ---- */

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

static uint64_t next(uint64_t *state) {
    *state += 0x9E3779B97F4A7C15ULL;
    return mix(*state);
}

/* In (0, 1). */
static double uniform(uint64_t *state) {
    return ((double)(next(state) >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(uint64_t *state) {
    const double u = uniform(state), v = uniform(state);
    return sqrt(-2.0 * log(u)) * cos(TWO_PI * v);
}

static double lattice(int x, int y, uint64_t seed) {
    const uint64_t h = mix(seed ^ ((uint64_t)(uint32_t)x << 32 | (uint32_t)y));
    return (double)(h >> 40) / 16777216.0;
}

/* Smooth noise in [0, 1] with features of about `scale` px. */
static double value_noise(double x, double y, double scale, uint64_t seed) {
    const double fx = floor(x / scale), fy = floor(y / scale);
    double tx = x / scale - fx, ty = y / scale - fy;
    const int ix = (int)fx, iy = (int)fy;
    tx = tx * tx * (3 - 2 * tx);
    ty = ty * ty * (3 - 2 * ty);
    const double a = lattice(ix, iy, seed) * (1 - tx) + lattice(ix + 1, iy, seed) * tx;
    const double b = lattice(ix, iy + 1, seed) * (1 - tx) + lattice(ix + 1, iy + 1, seed) * tx;
    return a * (1 - ty) + b * ty;
}

/* ---- shapes ---- */

typedef struct {
    double x, y, a, b, angle, level; /* centre, half axes, direction, brightness */
    double amplitude[HARMONICS], phase[HARMONICS];
    uint64_t seed;
} shape_t;

static void make_shape(shape_t *s, const sample_field_t *f, double roundness, double roughness, uint64_t *rng) {
    const double r = f->radius * fmax(0.5, 1 + f->spread * normal(rng));
    const double aspect = roundness + (1 - roundness) * uniform(rng);
    s->a = r / sqrt(aspect);
    s->b = r * sqrt(aspect);
    s->angle = TWO_PI * uniform(rng);
    s->level = exp(0.25 * normal(rng));
    for (int k = 0; k < HARMONICS; k++) {
        s->amplitude[k] = roughness * normal(rng) / (k + 2);
        s->phase[k] = TWO_PI * uniform(rng);
    }
    s->seed = next(rng);
}

/* Places shapes so that centres keep their distance; returns how many found room. */
static int place_shapes(shape_t *shapes, const sample_field_t *f, double roundness, double roughness, double gap,
                        uint64_t *rng) {
    int n = 0;
    const int wanted = f->objects < MAX_OBJECTS ? f->objects : MAX_OBJECTS;
    for (int i = 0; i < wanted; i++) {
        shape_t s;
        make_shape(&s, f, roundness, roughness, rng);
        bool placed = false;
        for (int t = 0; t < PLACE_TRIES && !placed; t++) {
            s.x = f->width * uniform(rng);
            s.y = f->height * uniform(rng);
            if (roundness > 0.8 &&
                (s.x < s.a * 1.2 || s.y < s.a * 1.2 || s.x > f->width - s.a * 1.2 || s.y > f->height - s.a * 1.2)) {
                continue;
            }
            placed = true;
            for (int k = 0; k < n && placed; k++) {
                const double reach = gap * (sqrt(s.a * s.b) + sqrt(shapes[k].a * shapes[k].b));
                placed = hypot(s.x - shapes[k].x, s.y - shapes[k].y) > reach;
            }
        }
        if (placed) {
            shapes[n++] = s;
        }
    }
    return n;
}

/* Distance from the centre as a part of the radius in that direction: below 1 is inside. */
static double relative_radius(const shape_t *s, double x, double y) {
    const double dx = x - s->x, dy = y - s->y;
    const double u = (dx * cos(s->angle) + dy * sin(s->angle)) / s->a;
    const double v = (-dx * sin(s->angle) + dy * cos(s->angle)) / s->b;
    const double phi = atan2(v, u);
    double edge = 1;
    for (int k = 0; k < HARMONICS; k++) {
        edge += s->amplitude[k] * cos((k + 2) * phi + s->phase[k]);
    }
    return hypot(u, v) / edge;
}

typedef void (*paint_fn)(float *pixel, const shape_t *s, double x, double y, double rho, double radius,
                         double contrast);

static void paint_all(float *plane, const sample_field_t *f, const shape_t *shapes, int n, double reach,
                      paint_fn paint) {
    for (int i = 0; i < n; i++) {
        const shape_t *s = &shapes[i];
        const double radius = sqrt(s->a * s->b), box = fmax(s->a, s->b) * reach;
        const int x0 = (int)fmax(0, s->x - box), x1 = (int)fmin(f->width - 1, s->x + box);
        const int y0 = (int)fmax(0, s->y - box), y1 = (int)fmin(f->height - 1, s->y + box);
        for (int y = y0; y <= y1; y++) {
            for (int x = x0; x <= x1; x++) {
                const double rho = relative_radius(s, x + 0.5, y + 0.5);
                if (rho < reach) {
                    paint(&plane[(size_t)y * (size_t)f->width + (size_t)x], s, x, y, rho, radius, f->contrast);
                }
            }
        }
    }
}

/* 1 well inside, 0 well outside, a ramp of `soft` px between. */
static double coverage(double rho, double radius, double soft) {
    const double t = fmin(1, fmax(0, 0.5 + (1 - rho) * radius / soft));
    return t * t * (3 - 2 * t);
}

/* ---- optics ---- */

static void blur_line(const float *in, float *out, int n, size_t step, const double *kernel, int radius) {
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = -radius; k <= radius; k++) {
            int j = i + k;
            j = j < 0 ? 0 : (j >= n ? n - 1 : j);
            sum += kernel[k + radius] * in[(size_t)j * step];
        }
        out[(size_t)i * step] = (float)sum;
    }
}

/* Gaussian, in place; scratch is a plane of the same size. */
static void blur(float *plane, float *scratch, int w, int h, double sigma) {
    double kernel[65] = {0};
    int radius = (int)ceil(2.5 * sigma);
    radius = radius > 32 ? 32 : radius;
    double sum = 0;
    for (int k = -radius; k <= radius; k++) {
        kernel[k + radius] = exp(-0.5 * k * k / (sigma * sigma));
        sum += kernel[k + radius];
    }
    for (int k = 0; k <= 2 * radius; k++) {
        kernel[k] /= sum;
    }
    for (int y = 0; y < h; y++) {
        blur_line(plane + (size_t)y * (size_t)w, scratch + (size_t)y * (size_t)w, w, 1, kernel, radius);
    }
    for (int x = 0; x < w; x++) {
        blur_line(scratch + x, plane + x, h, (size_t)w, kernel, radius);
    }
}

/* Light falls off towards the corners; the lamp is never quite in the middle. */
static double illumination(const sample_field_t *f, int x, int y, double depth) {
    const double dx = (x - 0.46 * f->width) / f->width, dy = (y - 0.55 * f->height) / f->height;
    return 1 - depth * 2 * (dx * dx + dy * dy);
}

/* ---- the two kinds ---- */

static void paint_nucleus(float *pixel, const shape_t *s, double x, double y, double rho, double radius,
                          double contrast) {
    const double coarse = value_noise(x, y, radius * 0.45, s->seed),
                 fine = value_noise(x, y, radius * 0.16, s->seed + 1);
    const double chromatin = 0.62 + 0.45 * coarse + 0.3 * fine;
    const double dome = 0.75 + 0.25 * sqrt(fmax(0, 1 - rho * rho));
    const float v = (float)(contrast * s->level * chromatin * dome * coverage(rho, radius, 2.0));
    *pixel = fmaxf(*pixel, v) + 0.25F * fminf(*pixel, v);
}

int sample_draw_nuclei(const sample_field_t *f, uint16_t *px) {
    const size_t n = (size_t)f->width * (size_t)f->height;
    uint64_t rng = f->seed;
    shape_t *shapes = calloc(MAX_OBJECTS, sizeof *shapes);
    float *plane = calloc(n, sizeof *plane), *haze = calloc(n, sizeof *haze), *scratch = calloc(n, sizeof *scratch);
    int status = -1;
    if (shapes && plane && haze && scratch) {
        const int placed = place_shapes(shapes, f, 0.62, 0.06, 0.9, &rng);
        paint_all(plane, f, shapes, placed, 1.4, paint_nucleus);
        memcpy(haze, plane, n * sizeof *haze);
        blur(plane, scratch, f->width, f->height, 0.9);
        blur(haze, scratch, f->width, f->height, 12);
        for (int y = 0; y < f->height; y++) {
            for (int x = 0; x < f->width; x++) {
                const size_t i = (size_t)y * (size_t)f->width + (size_t)x;
                const double light = illumination(f, x, y, 0.45);
                const double medium = 30 * value_noise(x, y, f->width / 3.0, f->seed + 7);
                const double signal = light * (plane[i] + 0.12 * haze[i] + 60 + medium);
                const double v = 100 + signal + normal(&rng) * sqrt(0.8 * signal + f->noise * f->noise);
                px[i] = (uint16_t)fmin(4095, fmax(0, v + 0.5));
            }
        }
        status = 0;
    }
    free(scratch);
    free(haze);
    free(plane);
    free(shapes);
    return status;
}

/* The plane holds transmission: 1 is the empty ground. */
static void paint_spheroid(float *pixel, const shape_t *s, double x, double y, double rho, double radius,
                           double contrast) {
    const double in = coverage(rho, radius, 3.5);
    const double depth = sqrt(fmax(0, 1 - rho * rho));
    const double cells = value_noise(x, y, 7, s->seed) - 0.5, grain = value_noise(x, y, 2.6, s->seed + 1) - 0.5;
    const double lumps = value_noise(x, y, radius * 0.5, s->seed + 2) - 0.5;
    const double inside = contrast * (0.42 + 0.5 * depth + 0.22 * lumps) - 0.20 * cells - 0.12 * grain;
    const double rim = contrast * 0.28 * exp(-pow((rho - 0.97) * radius / 3.0, 2));
    const double fringe = 0.10 * exp(-pow((rho - 1) * radius / 5.0 - 1.2, 2));
    *pixel = (float)(*pixel * (1 - in * fmin(0.92, fmax(0.05, inside)) - rim * 0.5) + fringe * (1 - in));
}

static void paint_debris(float *plane, const sample_field_t *f, uint64_t *rng) {
    const int specks = f->width * f->height / 26000;
    for (int i = 0; i < specks; i++) {
        const double cx = f->width * uniform(rng), cy = f->height * uniform(rng), r = 0.8 + 1.8 * uniform(rng);
        const double dark = 0.1 + 0.3 * uniform(rng);
        for (int y = (int)(cy - 4 * r); y <= (int)(cy + 4 * r); y++) {
            for (int x = (int)(cx - 4 * r); x <= (int)(cx + 4 * r); x++) {
                if (x >= 0 && y >= 0 && x < f->width && y < f->height) {
                    const double d = hypot(x + 0.5 - cx, y + 0.5 - cy) / r;
                    plane[(size_t)y * (size_t)f->width + (size_t)x] *= (float)(1 - dark * exp(-d * d));
                }
            }
        }
    }
}

int sample_draw_spheroids(const sample_field_t *f, int channels, uint8_t *px) {
    static const double tint[3] = {1.0, 0.975, 0.915};
    const size_t n = (size_t)f->width * (size_t)f->height;
    uint64_t rng = f->seed;
    shape_t *shapes = calloc(MAX_OBJECTS, sizeof *shapes);
    float *plane = calloc(n, sizeof *plane), *scratch = calloc(n, sizeof *scratch);
    int status = -1;
    if (shapes && plane && scratch) {
        for (size_t i = 0; i < n; i++) {
            plane[i] = 1.0F;
        }
        const int placed = place_shapes(shapes, f, 0.9, 0.035, 1.08, &rng);
        paint_all(plane, f, shapes, placed, 1.25, paint_spheroid);
        paint_debris(plane, f, &rng);
        blur(plane, scratch, f->width, f->height, 0.8);
        for (int y = 0; y < f->height; y++) {
            for (int x = 0; x < f->width; x++) {
                const size_t i = (size_t)y * (size_t)f->width + (size_t)x;
                const double cloud = 0.03 * (value_noise(x, y, f->width / 4.0, f->seed + 9) - 0.5);
                const double light = 205 * illumination(f, x, y, 0.38) * (plane[i] + cloud);
                const double noise = f->noise * normal(&rng);
                for (int k = 0; k < channels; k++) {
                    const double v = light * (channels == 3 ? tint[k] : 1) + noise;
                    px[i * (size_t)channels + (size_t)k] = (uint8_t)fmin(255, fmax(0, v + 0.5));
                }
            }
        }
        status = 0;
    }
    free(scratch);
    free(plane);
    free(shapes);
    return status;
}
