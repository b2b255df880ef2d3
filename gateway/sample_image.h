/*
 * Synthetic microscopy for the sample project. Deterministic for a seed; pure computation.
 */
#ifndef SG_GATEWAY_SAMPLE_IMAGE_H
#define SG_GATEWAY_SAMPLE_IMAGE_H

#include <stdint.h>

typedef struct {
    int width, height; /* px */
    int objects;       /* wanted; fewer when they do not fit */
    double radius;     /* mean, px */
    double spread;     /* relative standard deviation of the radius */
    double contrast;   /* nuclei: brightness over background, 12-bit counts; spheroids: depth of the absorption, 0..1 */
    double noise;      /* nuclei: read noise, counts; spheroids: standard deviation, grey values of 255 */
    uint64_t seed;
} sample_field_t;

/* Fluorescent nuclei: textured, soft-edged ellipses that touch but hardly overlap, haze, uneven light, shot and read
 * noise of a 12-bit camera. px: width*height. Returns 0, or -1 without memory. */
int sample_draw_nuclei(const sample_field_t *f, uint16_t *px);

/* Spheroids in transmitted light: dark, grainy, with a bright fringe, on an uneven bright ground with some debris.
 * channels: 1, or 3 with a slight tint. px: width*height*channels. Returns 0, or -1 without memory. */
int sample_draw_spheroids(const sample_field_t *f, int channels, uint8_t *px);

#endif
