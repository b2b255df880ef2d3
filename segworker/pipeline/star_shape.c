/* Geometry of star-convex polygons by scan lines: a polygon cut by a horizontal line gives pairs of crossings. */
#include "segworker/pipeline/star_shape.h"

#include <math.h>

enum { LINES = 32 };

#define PI 3.14159265358979323846

/* Unlike fminf and fmaxf these are one instruction; no NaN gets here. */
static inline float least(float a, float b) {
    return a < b ? a : b;
}

static inline float most_of(float a, float b) {
    return a > b ? a : b;
}

void star_rays_init(star_rays_t *r, int rays) {
    r->rays = rays;
    for (int k = 0; k < rays; k++) {
        r->cosine[k] = (float)cos(2 * PI * k / rays);
        r->sine[k] = (float)sin(2 * PI * k / rays);
    }
    r->inner_factor = (float)cos(PI / rays);
    r->sector = (float)(0.5 * sin(2 * PI / rays));
}

void star_shape_init(const star_rays_t *r, float cx, float cy, const float *lengths, star_shape_t *s, float *corners) {
    double area = 0;
    *s = (star_shape_t){.cx = cx, .cy = cy, .x0 = cx, .y0 = cy, .x1 = cx, .y1 = cy, .inner = lengths[0]};
    for (int k = 0; k < r->rays; k++) {
        float x = cx + lengths[k] * r->cosine[k], y = cy + lengths[k] * r->sine[k];
        corners[2 * k] = x;
        corners[2 * k + 1] = y;
        s->x0 = least(s->x0, x);
        s->y0 = least(s->y0, y);
        s->x1 = most_of(s->x1, x);
        s->y1 = most_of(s->y1, y);
        s->inner = least(s->inner, lengths[k]);
        area += (double)lengths[k] * lengths[k + 1 < r->rays ? k + 1 : 0];
    }
    s->inner *= r->inner_factor;
    s->area = (float)(area * r->sector);
}

/* ---- what two shapes share ---- */

typedef struct {
    float at[LINES][STAR_MAX_RAYS + 1];
    int n[LINES];
} crossings_t;

/* Crossings with the lines y0 + (l + 1/2) * step, each line's in ascending order; only lines 0..lines-1. */
static void cross_lines(int rays, const float *corners, float y0, float step, crossings_t *out) {
    for (int l = 0; l < LINES; l++) {
        out->n[l] = 0;
    }
    for (int k = 0; k < rays; k++) {
        int next = k + 1 < rays ? k + 1 : 0;
        float xa = corners[2 * k], ya = corners[2 * k + 1], xb = corners[2 * next], yb = corners[2 * next + 1];
        if (ya > yb) {
            float t = xa;
            xa = xb;
            xb = t;
            t = ya;
            ya = yb;
            yb = t;
        }
        float first = ceilf((ya - y0) / step - 0.5F), last = ceilf((yb - y0) / step - 0.5F);
        int from = first > 0 ? (int)least(first, LINES) : 0, to = last < LINES ? (int)most_of(last, 0) : LINES;
        float slope = from < to ? (xb - xa) / (yb - ya) : 0;
        for (int l = from; l < to; l++) {
            float x = xa + (y0 + ((float)l + 0.5F) * step - ya) * slope;
            int i = out->n[l]++;
            for (; i > 0 && out->at[l][i - 1] > x; i--) {
                out->at[l][i] = out->at[l][i - 1];
            }
            out->at[l][i] = x;
        }
    }
}

/* Length of the meet of two sets of intervals. */
static float common_length(const float *a, int na, const float *b, int nb) {
    float sum = 0;
    for (int i = 0, j = 0; i + 1 < na && j + 1 < nb;) {
        float from = most_of(a[i], b[j]), to = least(a[i + 1], b[j + 1]);
        sum += to > from ? to - from : 0;
        if (a[i + 1] < b[j + 1]) {
            i += 2;
        } else {
            j += 2;
        }
    }
    return sum;
}

static float common_area(const star_rays_t *r, const star_shape_t *a, const float *a_corners, const star_shape_t *b,
                         const float *b_corners) {
    crossings_t ca, cb;
    float y0 = most_of(a->y0, b->y0), y1 = least(a->y1, b->y1), step = (y1 - y0) / LINES, sum = 0;
    if (!(step > 0)) {
        return 0;
    }
    cross_lines(r->rays, a_corners, y0, step, &ca);
    cross_lines(r->rays, b_corners, y0, step, &cb);
    for (int l = 0; l < LINES; l++) {
        sum += common_length(ca.at[l], ca.n[l], cb.at[l], cb.n[l]);
    }
    return sum * step;
}

/* A lower bound of the common area: that of the square inside the lens of the two inner circles. */
static float surely_common(const star_shape_t *a, const star_shape_t *b) {
    float dx = a->cx - b->cx, dy = a->cy - b->cy, d = sqrtf(dx * dx + dy * dy);
    float small = least(a->inner, b->inner), large = most_of(a->inner, b->inner);
    if (d + small <= large) {
        return (float)PI * small * small;
    }
    float width = a->inner + b->inner - d; /* the circle of this diameter lies in both */
    return width > 0 ? (float)PI * width * width / 4 : 0;
}

bool star_shapes_overlap(const star_rays_t *r, const star_shape_t *a, const float *a_corners, const star_shape_t *b,
                         const float *b_corners, float share) {
    float w = least(a->x1, b->x1) - most_of(a->x0, b->x0), h = least(a->y1, b->y1) - most_of(a->y0, b->y0);
    float limit = share * least(a->area, b->area);
    if (!(w > 0) || !(h > 0) || w * h <= limit) {
        return false;
    }
    return surely_common(a, b) > limit || common_area(r, a, a_corners, b, b_corners) > limit;
}

/* ---- drawing ---- */

static int clamp_px(float v, int most) {
    return v <= 0 ? 0 : v >= (float)most ? most : (int)v;
}

void star_shape_draw(const star_rays_t *r, const star_shape_t *s, const float *corners, int32_t label, int width,
                     int height, int32_t *labels) {
    int top = clamp_px(ceilf(s->y0 - 0.5F), height), bottom = clamp_px(ceilf(s->y1 - 0.5F), height);
    crossings_t c;
    for (int y = top; y < bottom; y += LINES) { /* LINES rows at a time, each crossed at its pixels' centres */
        cross_lines(r->rays, corners, (float)y, 1, &c);
        for (int l = 0; l < LINES && y + l < bottom; l++) {
            int32_t *row = labels + (size_t)(y + l) * (size_t)width;
            for (int i = 0; i + 1 < c.n[l]; i += 2) {
                int to = clamp_px(ceilf(c.at[l][i + 1] - 0.5F), width);
                for (int x = clamp_px(ceilf(c.at[l][i] - 0.5F), width); x < to; x++) {
                    row[x] = row[x] == 0 ? label : row[x];
                }
            }
        }
    }
}
