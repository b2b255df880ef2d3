/* process_* metrics from /proc/self (see proc(5)). */
#include "metrics_process.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Reads the beginning of a small file as text. */
static bool read_text(const char *path, char *out, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, out, room - 1);
    close(fd);
    if (n < 0) {
        return false;
    }
    out[n] = '\0';
    return true;
}

static void put(buf_t *out, const char *name, const char *kind, const char *help, double v) {
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, kind, name, v);
}

/* Field number `want` (1-based, as in proc(5)) of /proc/self/stat. The name, field 2, may hold blanks and
 * parentheses, so counting starts after its last parenthesis. */
static bool stat_field(const char *stat, int want, uint64_t *out) {
    const char *p = strrchr(stat, ')');
    for (int field = 2; p && field < want; field++) {
        p = strchr(p + 1, ' ');
    }
    if (!p) {
        return false;
    }
    char *end = NULL;
    *out = strtoull(p + 1, &end, 10);
    return end != p + 1;
}

static bool boot_time(double *seconds) {
    char text[8192];
    /* The line is far down on a machine with many processors; read in pieces until it comes. */
    int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool found = false;
    size_t kept = 0;
    for (int round = 0; round < 64 && !found; round++) {
        ssize_t n = read(fd, text + kept, sizeof text - 1 - kept);
        if (n <= 0) {
            break;
        }
        size_t len = kept + (size_t)n;
        text[len] = '\0';
        const char *line = strstr(text, "\nbtime ");
        if (line && strchr(line + 1, '\n')) {
            *seconds = strtod(line + strlen("\nbtime "), NULL);
            found = true;
        } else {
            kept = len > 64 ? 64 : len; /* a line of interest may be cut here */
            memmove(text, text + len - kept, kept);
        }
    }
    close(fd);
    return found;
}

static int count_fds(void) {
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) {
        return -1;
    }
    int n = 0;
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n - 3; /* ".", ".." and the directory itself */
}

void metrics_put_process(buf_t *out) {
    char text[1024];
    double tick = (double)sysconf(_SC_CLK_TCK);
    if (tick > 0 && read_text("/proc/self/stat", text, sizeof text)) {
        uint64_t user;
        uint64_t sys;
        uint64_t start;
        uint64_t threads;
        double boot;
        if (stat_field(text, 14, &user) && stat_field(text, 15, &sys)) {
            put(out, "process_cpu_seconds_total", "counter", "User and system CPU time, seconds.",
                (double)(user + sys) / tick);
        }
        if (stat_field(text, 22, &start) && boot_time(&boot)) {
            put(out, "process_start_time_seconds", "gauge", "Start of the process, seconds since 1970.",
                boot + (double)start / tick);
        }
        if (stat_field(text, 20, &threads)) {
            put(out, "process_threads", "gauge", "Threads.", (double)threads);
        }
    }
    if (read_text("/proc/self/statm", text, sizeof text)) {
        double page = (double)sysconf(_SC_PAGESIZE);
        char *at = text;
        double virt = (double)strtoull(at, &at, 10) * page;
        double resident = (double)strtoull(at, &at, 10) * page;
        put(out, "process_virtual_memory_bytes", "gauge", "Virtual memory, bytes.", virt);
        put(out, "process_resident_memory_bytes", "gauge", "Resident memory, bytes.", resident);
    }
    int fds = count_fds();
    if (fds >= 0) {
        put(out, "process_open_fds", "gauge", "Open file descriptors.", fds);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        put(out, "process_max_fds", "gauge", "Most file descriptors that may be open.", (double)limit.rlim_cur);
    }
}
