/*
 * Clocks and RFC 3339 text. The calendar is computed here (days since 1970 <-> civil date, proleptic Gregorian)
 * because gmtime_r may take a lock inside the C library and log lines are written from every thread.
 */
#include "timeutil.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t time_mono_us(void) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t time_mono_ms(void) {
    return time_mono_us() / 1000;
}

int64_t time_wall_ms(void) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool is_leap(int64_t year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int month_days(int64_t year, int month) {
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* Days from 0000-01-01 to the first of January of a year >= 0. */
static int64_t days_before_year(int64_t year) {
    if (year == 0) {
        return 0;
    }
    int64_t y = year - 1;
    return year * 365 + y / 4 - y / 100 + y / 400 + 1; /* + 1: year 0 is a leap year */
}

static const int64_t EPOCH_DAY = 719528; /* days_before_year(1970) */
static const int64_t DAY_MS = 86400000;

void time_format_rfc3339(int64_t wall_ms, char out[TIME_RFC3339_SIZE]) {
    const int64_t least = -EPOCH_DAY * DAY_MS;
    const int64_t greatest = (days_before_year(10000) - EPOCH_DAY) * DAY_MS - 1;
    int64_t t = wall_ms < least ? least : wall_ms > greatest ? greatest : wall_ms;
    t -= least;
    int64_t day = t / DAY_MS;
    int64_t ms = t % DAY_MS;
    int64_t year = day / 366; /* never too large; the loop below takes a few steps */
    while (days_before_year(year + 1) <= day) {
        year++;
    }
    day -= days_before_year(year);
    int month = 1;
    while (day >= month_days(year, month)) {
        day -= month_days(year, month);
        month++;
    }
    (void)snprintf(out, TIME_RFC3339_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)(year % 10000),
                   (unsigned)month % 100U, (unsigned)(day + 1) % 100U, (unsigned)(ms / 3600000) % 100U,
                   (unsigned)(ms / 60000 % 60), (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));
}

/* Reads exactly n digits at *p and moves on. */
static bool read_digits(const char **p, int n, int *out) {
    int v = 0;
    for (int i = 0; i < n; i++) {
        char c = (*p)[i];
        if (c < '0' || c > '9') {
            return false;
        }
        v = v * 10 + (c - '0');
    }
    *p += n;
    *out = v;
    return true;
}

static bool read_char(const char **p, char want) {
    if (**p != want) {
        return false;
    }
    (*p)++;
    return true;
}

static bool read_fraction(const char **p, int *ms) {
    *ms = 0;
    if (**p != '.') {
        return true;
    }
    (*p)++;
    int scale = 100;
    int digits = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++, digits++) {
        *ms += (**p - '0') * scale;
        scale /= 10;
    }
    return digits > 0 && digits <= 9;
}

static bool read_zone(const char **p, int *offset_min) {
    *offset_min = 0;
    if (**p == 'Z' || **p == 'z') {
        (*p)++;
        return true;
    }
    int sign = **p == '-' ? -1 : 1;
    int hours;
    int minutes;
    if (**p != '+' && **p != '-') {
        return false;
    }
    (*p)++;
    if (!read_digits(p, 2, &hours) || !read_char(p, ':') || !read_digits(p, 2, &minutes) || hours > 23 ||
        minutes > 59) {
        return false;
    }
    *offset_min = sign * (hours * 60 + minutes);
    return true;
}

bool time_parse_rfc3339(const char *text, int64_t *wall_ms) {
    const char *p = text;
    int year;
    int month;
    int day;
    int hour;
    int minute;
    int second;
    int ms;
    int offset;
    if (!read_digits(&p, 4, &year) || !read_char(&p, '-') || !read_digits(&p, 2, &month) || !read_char(&p, '-') ||
        !read_digits(&p, 2, &day) || (*p != 'T' && *p != 't' && *p != ' ')) {
        return false;
    }
    p++;
    if (!read_digits(&p, 2, &hour) || !read_char(&p, ':') || !read_digits(&p, 2, &minute) || !read_char(&p, ':') ||
        !read_digits(&p, 2, &second) || !read_fraction(&p, &ms) || !read_zone(&p, &offset) || *p != '\0') {
        return false;
    }
    if (month < 1 || month > 12 || day < 1 || day > month_days(year, month) || hour > 23 || minute > 59 ||
        second > 60) {
        return false;
    }
    int64_t days = days_before_year(year) - EPOCH_DAY + day - 1;
    for (int m = 1; m < month; m++) {
        days += month_days(year, m);
    }
    *wall_ms = days * DAY_MS + ((int64_t)hour * 60 + minute - offset) * 60000 + (int64_t)second * 1000 + ms;
    return true;
}

void time_sleep_ms(int64_t ms) {
    if (ms <= 0) {
        return;
    }
    struct timespec ts = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000L};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR) {
    }
}
